//! The flow table and the counts of open connections that follow from it, as user space knows them.

use aya::maps::IterableMap as _;
use kproxy_common::{
    abi::map,
    net::{Addr, Port},
};

use super::{
    recount::{self, Recount},
    sweep::{self, SweepReport},
};
use crate::dataplane::{
    error::Error,
    kernel::clock,
    maps::{Flows, Loads},
    report::Fill,
};

/// Both maps, and what the last sweep has found.
pub(crate) struct FlowTable {
    flows: Flows,
    loads: Loads,
    recount: Recount,
    /// `None`: nothing was swept yet.
    last: Option<SweepReport>,
}

impl FlowTable {
    /// The maps as they are.
    pub(crate) fn new(flows: Flows, loads: Loads) -> Self {
        Self { flows, loads, recount: Recount::default(), last: None }
    }

    /// Forgets flows that are over and UDP flows of backends that do not serve. `counts_connections`:
    /// puts the numbers of open connections right as well.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn sweep(
        &mut self,
        serves: impl Fn(u32, Addr, Port) -> bool,
        counts_connections: bool,
    ) -> Result<SweepReport, Error> {
        let (report, open) = sweep::sweep(&mut self.flows, serves, clock::now())
            .map_err(Error::of_map("read", map::FLOWS))?;
        if counts_connections {
            self.recount
                .correct(&mut self.loads, &open)
                .map_err(Error::of_map("read", map::LOAD))?;
        }
        self.last = Some(report);
        Ok(report)
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
        let used = self.last.map_or(0, |report| report.entries - report.removed);
        let capacity = self.flows.map().info().map_or(0, |info| info.max_entries());
        Fill { used: used as u32, capacity }
    }

    /// The flows themselves, to put some in.
    #[cfg(test)]
    pub(crate) const fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }
}
