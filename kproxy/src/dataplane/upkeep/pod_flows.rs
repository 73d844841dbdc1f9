//! Whether pod-facing ports translate answers. The program that does so sees every packet to every
//! pod, so it is attached only once a port has a flow to open; on most nodes none ever has.

use kproxy_common::filter::{POD_FLOWS, POD_FLOWS_ANSWERED, POD_FLOWS_WANTED};

use crate::dataplane::{error::Error, maps::FlowFilter};

/// The programs' word for user space and back, in the last element of the flow filter: see
/// [`POD_FLOWS`].
pub(crate) struct PodFlows {
    filter: FlowFilter,
    /// Whether ports get the program for answers. For good: connections may live on it.
    answers_pods: bool,
}

impl PodFlows {
    /// As an earlier run has left it.
    pub(crate) fn new(filter: FlowFilter) -> Self {
        let mut flows = Self { filter, answers_pods: false };
        flows.answers_pods = flows.are_wanted();
        flows
    }

    /// Whether a port has had a flow to open, in this run or an earlier one. A map that cannot be
    /// read says so as well: answers must not be missed.
    fn are_wanted(&self) -> bool {
        let bytes = self.filter.get(&POD_FLOWS, 0);
        bytes.map_or(true, |bytes| bytes[POD_FLOWS_WANTED] != 0)
    }

    /// Whether ports get the program for answers.
    pub(crate) const fn answers_pods(&self) -> bool {
        self.answers_pods
    }

    /// From now on they do.
    pub(crate) const fn answer_pods(&mut self) {
        self.answers_pods = true;
    }

    /// Whether a port has a flow to open and waits for that.
    pub(crate) fn are_pending(&self) -> bool {
        !self.answers_pods && self.are_wanted()
    }

    /// Lets ports open flows: all have the program.
    ///
    /// # Errors
    /// The kernel refused; ports go on dropping what would open a flow.
    pub(crate) fn open(&mut self) -> Result<(), Error> {
        let mut bytes = [0; 8];
        bytes[POD_FLOWS_WANTED] = 1;
        bytes[POD_FLOWS_ANSWERED] = 1;
        self.filter.set(POD_FLOWS, bytes, 0).map_err(Error::PodFlows)
    }
}
