//! What a look at all flows tells: which the programs are to forget, and how many there are of each
//! kind. Pure: all facts come from the arguments.
//!
//! TCP flows keep their backend until they end (VER-10). A UDP flow has no end of its own: the programs
//! end it at the next datagram once its backend serves no more (CT-06, CT-07), and what is left of it
//! then, or is still there without a datagram, is counted here, once (CT-10). A backend that only takes no
//! new flows, because it terminates or a policy leaves it out, keeps those that it has (CT-05).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kproxy_common::{
    config::Config,
    counters::NO_SERVICE,
    flow::{FlowKey, flow_flags},
    load::{LoadKey, counted},
    net::{Addr, Port, proto},
};

use super::recount::OpenConnections;
use crate::dataplane::{
    connections::{Connection, Entry, connections, port_pool},
    report::PortPool,
};

/// What a sweep has found and done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SweepReport {
    /// Entries looked at; two a connection.
    pub entries: usize,
    /// Entries removed.
    pub removed: usize,
    /// Connections that give way to no other.
    pub assured: usize,
    /// Connections that give way.
    pub unassured: usize,
    /// Connections that netfilter masqueraded when the sweep began.
    pub masqueraded: usize,
    /// Entries of connections of this node's own processes when the sweep began.
    pub own: usize,
    /// IPv4 UDP flows found since the sweep before whose backend serves no more.
    pub left_v4: usize,
    /// The same of IPv6.
    pub left_v6: usize,
    /// How many source ports are taken; `None`: the programs give none out.
    pub ports: Option<PortPool>,
}

/// Keys of forward entries by source address.
pub(super) type Sources = BTreeMap<Addr, Vec<FlowKey>>;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Connections whose time is up, by one of their entries.
    pub(super) whole: Vec<FlowKey>,
    /// The same of entries without their other half.
    pub(super) lone: Vec<FlowKey>,
    /// Forward entries of UDP flows whose backend serves no more.
    pub(super) leaving: Vec<FlowKey>,
    /// Forward entries of those that leave with a source address which no uplink has, by that.
    pub(super) sources: Sources,
    /// Open connections that are counted, of the others.
    pub(super) open: OpenConnections,
    /// UDP flows whose backend serves no more, by the keys of their reverse entries.
    pub(super) left: HashSet<FlowKey>,
    /// Assured connections, those whose time is up as well: what the programs have counted.
    pub(super) assured: i64,
    /// As far as it is known before anything is removed.
    pub(super) report: SweepReport,
}

/// A backend that a flow was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    /// Service index.
    pub(crate) service: u32,
    /// Generation of the service's word when the backend was last found in it.
    pub(crate) generation: u16,
    /// Its address.
    pub(crate) addr: Addr,
    /// Its port.
    pub(crate) port: Port,
}

/// Looks at all entries. `now`: seconds of the programs' clock. `has_left`: whether a backend serves no
/// more. `left`: the flows of those that the sweep before has found. `uplinks`: the source addresses of all.
pub(super) fn find(
    entries: &[Entry],
    config: &Config,
    now: u32,
    has_left: impl Fn(Given) -> bool,
    left: &HashSet<FlowKey>,
    uplinks: &BTreeSet<Addr>,
) -> Found {
    let (gone, live): (Vec<_>, Vec<_>) = connections(entries)
        .into_iter()
        .partition(|connection| connection.is_forgotten(config, now));
    let mut found = Found::default();
    for connection in &gone {
        found.assured += i64::from(connection.has(flow_flags::ASSURED));
        let list = if connection.is_lone() { &mut found.lone } else { &mut found.whole };
        list.extend(connection.entries().next().map(|(key, _)| *key));
    }
    for connection in &live {
        if connection.has(flow_flags::ASSURED) {
            found.report.assured += 1;
        } else {
            found.report.unassured += 1;
        }
        if let Some((key, forward)) = connection.forward
            && forward.flags & flow_flags::SNAT != 0
            && !uplinks.contains(&forward.to.src)
        {
            found.sources.entry(forward.to.src).or_default().push(*key);
        }
        if let Some((_, forward)) = connection.forward
            && forward.flags & flow_flags::COUNTED != 0
        {
            let (addr, port) = (forward.to.dst, forward.to.dst_port);
            *found.open.entry(LoadKey { addr, port, path: counted::FLOWS }).or_default() += 1;
        }
        if let Some((key, given)) = udp_backend(connection)
            && has_left(given)
        {
            found.leaving.extend(connection.forward.map(|(key, _)| *key));
            if !found.left.insert(key) || left.contains(&key) {
                continue;
            }
            let report = &mut found.report;
            let count = if key.src.is_v4() { &mut report.left_v4 } else { &mut report.left_v6 };
            *count += 1;
        }
    }
    found.assured += found.report.assured as i64;
    let with = |flag| entries.iter().filter(move |(_, value)| value.flags & flag != 0).count();
    found.report.entries = entries.len();
    found.report.masqueraded = with(flow_flags::MASQUERADE);
    found.report.own = with(flow_flags::NODE);
    found.report.ports = port_pool(live.iter(), config, now);
    found
}

/// The backend of a UDP flow, and the key of its reverse entry, which outlives the forward one.
fn udp_backend(connection: &Connection<'_>) -> Option<(FlowKey, Given)> {
    let (key, value) = match (connection.forward, connection.reverse) {
        (Some((_, forward)), _) => (forward.to.reversed(), forward),
        (None, Some((key, reverse))) => (*key, reverse),
        (None, None) => return None,
    };
    let is_served = key.proto == proto::UDP && value.service != NO_SERVICE;
    let (service, generation) = (value.service, value.generation);
    is_served.then_some((key, Given { service, generation, addr: key.src, port: key.src_port }))
}

#[cfg(test)]
mod tests {
    use kproxy_common::flow::flow_state;

    use super::*;
    use crate::dataplane::connections::{LONE, tests::flow};

    const NOW: u32 = 1_000_000;

    fn own(proto: u8, (state, flags): (u8, u16), ago: u32) -> [Entry; 2] {
        flow((proto, 40_000), ("203.0.113.9", 40_000), (state, flags), [NOW - ago; 2])
    }

    fn found(entries: &[Entry], gone: bool, left: &HashSet<FlowKey>) -> Found {
        find(entries, &Config::default(), NOW, |_| gone, left, &BTreeSet::new())
    }

    #[test]
    fn what_is_old_is_named_once_and_counts_no_more() {
        let assured = flow_flags::ASSURED | flow_flags::COUNTED;
        for (ago, whole, open) in [(86_399, 0, 1), (86_400, 1, 0)] {
            let entries = own(proto::TCP, (flow_state::ESTABLISHED, assured), ago);
            let found = found(&entries, false, &HashSet::new());
            assert_eq!((found.whole.len(), found.lone.len()), (whole, 0));
            assert_eq!((found.report.entries, found.report.assured), (2, open));
            assert_eq!(found.open.values().sum::<i64>(), open as i64);
        }
        for entry in own(proto::TCP, (flow_state::ESTABLISHED, 0), LONE) {
            let found = found(&[entry], false, &HashSet::new());
            assert_eq!((found.lone, found.whole.len()), (vec![entry.0], 0));
        }
        let live = own(proto::TCP, (flow_state::OPENING, flow_flags::NODE), 0);
        let report = found(&live, false, &HashSet::new()).report;
        assert_eq!((report.unassured, report.own, report.masqueraded), (1, 2, 0));
    }

    #[test]
    fn open_connections_are_counted_by_backend() {
        let entries = own(proto::TCP, (flow_state::ESTABLISHED, flow_flags::COUNTED), 0);
        let to = entries[0].1.to;
        let key = LoadKey { addr: to.dst, port: to.dst_port, path: counted::FLOWS };
        assert_eq!(found(&entries, false, &HashSet::new()).open, OpenConnections::from([(key, 1)]));
    }

    #[test]
    fn ct_06_ct_10_udp_of_a_backend_that_has_gone_is_counted_once() {
        let udp = own(proto::UDP, (flow_state::REPLIED, 0), 0);
        let count = |entries: &[Entry], gone, before: &Found| {
            let found = found(entries, gone, &before.left);
            assert_eq!((found.whole.len(), found.report.left_v6), (0, 0));
            (found.report.left_v4, found)
        };
        let (none, before) = count(&udp, false, &Found::default());
        assert_eq!(none, 0);
        let (first, before) = count(&udp, true, &before);
        assert_eq!(first, 1);
        let (again, before) = count(&udp, true, &before);
        assert_eq!(again, 0);
        // A datagram has opened it anew; the way back is left for answers under way.
        assert_eq!(count(&udp[1..], true, &before).0, 0);
        assert_eq!(count(&udp[1..], true, &Found::default()).0, 1);
        let tcp = own(proto::TCP, (flow_state::ESTABLISHED, 0), 0);
        assert_eq!(count(&tcp, true, &Found::default()).0, 0, "CT-07: TCP stays");
    }
}
