//! The flow table as far as the control loop knows it: by what the last sweep has found.

use kproxy_common::abi::map;

use super::{recount, sweep::SweepReport};
use crate::dataplane::{error::Error, maps::Loads, report::Fill};

/// What the last sweep has found, and the counts of open connections.
pub(crate) struct FlowTable {
    loads: Loads,
    capacity: u32,
    /// `None`: nothing was swept yet.
    last: Option<SweepReport>,
}

impl FlowTable {
    /// `capacity`: entries that fit into the table.
    pub(crate) const fn new(loads: Loads, capacity: u32) -> Self {
        Self { loads, capacity, last: None }
    }

    /// A sweep is over.
    pub(crate) const fn swept(&mut self, report: SweepReport) {
        self.last = Some(report);
    }

    /// Forgets the connections of sockets, which nobody sees close any more.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn forget_sockets(&mut self) -> Result<(), Error> {
        recount::forget_sockets(&mut self.loads).map_err(Error::of_map("read", map::LOAD))
    }

    /// Connections that netfilter masquerades, at the last sweep.
    pub(crate) fn masqueraded(&self) -> Option<usize> {
        self.last.map(|report| report.masqueraded)
    }

    /// Flow entries of this node's own processes, at the last sweep.
    pub(crate) fn of_node(&self) -> Option<usize> {
        self.last.map(|report| report.own)
    }

    /// Flow entries at the last sweep.
    pub(crate) fn fill(&self) -> Fill {
        let used = self.last.map_or(0, |report| report.entries.saturating_sub(report.removed));
        Fill { used: used as u32, capacity: self.capacity }
    }
}
