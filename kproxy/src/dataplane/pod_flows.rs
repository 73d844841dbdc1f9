//! Whether pod-facing ports translate answers. The program that does so sees every packet to every
//! pod, so it is attached only once a port has a flow to open; on most nodes none ever has.

use std::io;

use aya::maps::{Array, MapData};
use kproxy_common::filter;

use super::error::{Error, chain};

/// The flow filter, of which this is the last element.
pub(super) type Filter = Array<MapData, [u8; 8]>;

/// The programs' word for user space and back: see [`filter::POD_FLOWS`].
pub(super) struct PodFlows {
    filter: Filter,
    /// Whether ports get the program for answers. For good: connections may live on it.
    answered: bool,
}

impl PodFlows {
    pub(super) fn new(filter: Filter) -> Self {
        let mut flows = Self { filter, answered: false };
        flows.answered = flows.wanted();
        flows
    }

    /// Whether a port has had a flow to open, in this run or an earlier one. A map that cannot be
    /// read says so as well: answers must not be missed.
    fn wanted(&self) -> bool {
        let bytes = self.filter.get(&filter::POD_FLOWS, 0);
        bytes.map_or(true, |bytes| bytes[filter::POD_FLOWS_WANTED] != 0)
    }

    /// Whether ports get the program for answers.
    pub(super) const fn answered(&self) -> bool {
        self.answered
    }

    /// From now on they do.
    pub(super) const fn answer(&mut self) {
        self.answered = true;
    }

    /// Whether a port waits for that.
    pub(super) fn wait(&self) -> bool {
        !self.answered && self.wanted()
    }

    /// Lets ports open flows: all have the program.
    ///
    /// # Errors
    /// The kernel refused; ports go on dropping what would open a flow.
    pub(super) fn open(&mut self) -> Result<(), Error> {
        let mut bytes = [0; 8];
        bytes[filter::POD_FLOWS_WANTED] = 1;
        bytes[filter::POD_FLOWS_ANSWERED] = 1;
        let written = self.filter.set(filter::POD_FLOWS, bytes, 0);
        written.map_err(|error| Error::Maps(io::Error::other(chain(&error))))
    }
}
