//! Sweeps the flow table, with handles of its own: nobody waits for it.
//!
//! The programs forget what is old wherever they find it; what nobody looks for is found here. They
//! judge it as well, so that a flow which goes on meanwhile stays.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use kproxy_common::{
    abi::{map, program},
    config::Config,
    flow::{
        FlowKey,
        sweep::{SWEPT, SweepQuery},
    },
    net::Addr,
};

use super::{
    flow_filter::{self, FlowFilter},
    recount::{Recount, correction},
    sweep::{self, Found, Given, Sources, SweepReport},
    uplinks,
};
use crate::{
    dataplane::{
        error::Error,
        kernel::{bpf, clock, hash, memory::Memory, program::SharedProgram},
        maps::{Flows, Loads, SweptMaps, Uplinks},
    },
    node,
};

/// Sweeps; made once, so that it remembers what the sweep before has found.
pub(crate) struct FlowSweeper {
    program: SharedProgram,
    flows: Flows,
    loads: Loads,
    uplinks: Uplinks,
    /// Word that an uplink has lost an address.
    lost: Receiver<()>,
    assured: Memory<u64>,
    filter: FlowFilter,
    recount: Recount,
    left: HashSet<FlowKey>,
    /// By how much the number of assured flows was wrong.
    wrong: i64,
}

impl FlowSweeper {
    /// `program` is [`program::SWEEP`].
    pub(in crate::dataplane) fn new(
        program: SharedProgram,
        maps: SweptMaps,
        lost: Receiver<()>,
    ) -> Self {
        let SweptMaps { flows, loads, assured, flow_filter, uplinks } = maps;
        Self {
            program,
            flows,
            loads,
            uplinks,
            lost,
            assured,
            filter: FlowFilter::new(flow_filter),
            recount: Recount::default(),
            left: HashSet::new(),
            wrong: 0,
        }
    }

    /// Waits so long, or until an uplink has lost an address.
    pub(crate) fn rest(&self, at_most: Duration) {
        // Nobody sends once the data path is gone, and then nobody sweeps, either.
        if self.lost.recv_timeout(at_most) == Err(RecvTimeoutError::Disconnected) {
            thread::sleep(at_most);
        }
    }

    /// Has the programs forget what is old, and puts right what follows from the flows: their number,
    /// the filter and, with `counts_connections`, the numbers of open connections. `has_left`: whether
    /// a backend serves no more.
    ///
    /// # Errors
    /// A map could not be read, or the program not be run.
    pub(crate) fn sweep(
        &mut self,
        config: &Config,
        counts_connections: bool,
        has_left: impl Fn(Given) -> bool,
    ) -> Result<SweepReport, Error> {
        let rebuilds = self.filter.is_due();
        if rebuilds {
            self.filter.begin();
            thread::sleep(flow_filter::WAIT);
        }
        let before = self.assured();
        let entries = hash::read(&self.flows).map_err(Error::of_map("read", map::FLOWS))?;
        let during = [before, self.assured()];
        if rebuilds {
            self.filter.finish(&entries);
        }
        let now = clock::in_seconds(clock::now());
        let uplinks = hash::read(&self.uplinks).map_err(Error::of_map("read", map::UPLINKS))?;
        let uplinks = uplinks::sources(uplinks.iter().map(|(_, uplink)| uplink));
        let Found { whole, lone, leaving, sources, open, left, assured, mut report } =
            sweep::find(&entries, config, now, has_left, &self.left, &uplinks);
        self.left = left;
        self.correct_assured(assured, during);
        let run =
            |error: io::Error| Error::Program { program: program::SWEEP, source: error.into() };
        let any = Addr::default();
        report.removed = self.forget(&whole, any).map_err(run)? * 2
            + self.forget(&lone, any).map_err(run)?
            + self.forget(&leaving, any).map_err(run)?;
        for (source, keys) in Self::lost(sources, &uplinks)? {
            report.removed += self.forget(&keys, source).map_err(run)? * 2;
        }
        if counts_connections {
            let corrected = self.recount.correct(&mut self.loads, &open);
            corrected.map_err(Error::of_map("read", map::LOAD))?;
        }
        Ok(report)
    }

    /// Those of these sources that this node has lost while an uplink has another of the family: what still
    /// leaves with one is not answered any more. Without another there is nothing better, and an uplink that is
    /// down for a moment gets its address back.
    fn lost(mut sources: Sources, uplinks: &BTreeSet<Addr>) -> Result<Sources, Error> {
        sources.retain(|source, _| uplinks.iter().any(|other| other.is_v4() == source.is_v4()));
        if !sources.is_empty() {
            // The address may only have ceased to be the first one.
            let own =
                node::namespaces::addresses().map_err(Error::of_map("compare", map::UPLINKS))?;
            sources.retain(|source, _| !own.contains(&IpAddr::from(*source)));
        }
        Ok(sources)
    }

    /// Has the programs look at these entries. `source`: see [`SweepQuery::source`]. How many of them they
    /// have removed.
    fn forget(&self, keys: &[FlowKey], source: Addr) -> io::Result<usize> {
        let mut removed = 0;
        for some in keys.chunks(SWEPT) {
            let mut query = SweepQuery {
                ethernet: [0; 16],
                count: some.len() as u32,
                removed: 0,
                source,
                keys: [FlowKey::default(); SWEPT],
            };
            query.keys[..some.len()].copy_from_slice(some);
            bpf::run_on(self.program.lock().as_fd(), &mut query)?;
            removed += query.removed as usize;
        }
        Ok(removed)
    }

    /// Assured flows, as the programs have counted them.
    pub(super) fn assured(&self) -> i64 {
        self.assured.get(0).unwrap_or(0) as i64
    }

    /// Puts the programs' number of assured flows right, as [`Recount`] does with others. `found`: in the
    /// table; `counted`: the number before and after it was read.
    fn correct_assured(&mut self, found: i64, counted: [i64; 2]) {
        let now = wrong(found, counted);
        let change = correction(self.wrong, now);
        self.assured.add(0, change);
        self.wrong = now - change;
    }

    /// The flows themselves, to put some in.
    #[cfg(test)]
    pub(crate) const fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }
}

/// By how much a number is wrong that went from one of `counted` to the other meanwhile.
fn wrong(found: i64, counted: [i64; 2]) -> i64 {
    let [first, last] = counted;
    found - found.clamp(first.min(last), first.max(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_moves_while_it_is_counted_is_not_wrong() {
        for (found, counted, by) in [
            (5, [5, 5], 0),
            (5, [3, 7], 0),
            (5, [7, 3], 0),
            (2, [3, 7], -1),
            (9, [7, 3], 2),
            (0, [-2, -2], 2),
        ] {
            assert_eq!(wrong(found, counted), by, "{found} {counted:?}");
        }
    }
}
