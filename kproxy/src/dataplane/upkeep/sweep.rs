//! Forgets flows: those that are over, those whose other half is missing, and UDP flows of a
//! backend that serves no more.
//!
//! TCP flows keep their backend until they end (VER-10). A UDP flow has no end of its own, so it
//! is cut when its backend is gone, also when no backend is left (CT-06, and CT-07 done right);
//! the next datagram opens a new one, and the way back stays until it is idle, for answers under way.
//! A backend that only takes no new flows, because it terminates or a policy leaves it out, keeps
//! those that it has (CT-05). What is left is counted by backend for least connections.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use kproxy_common::{
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    load::{LoadKey, counted},
    net::{Addr, Port, proto},
};

use super::recount::OpenConnections;
use crate::dataplane::{
    kernel::{clock, hash},
    maps::Flows,
};

/// Entries younger than this are not taken for half a flow: the program inserts the halves one
/// after the other.
const HALF_AGE: u32 = 2;

/// What a sweep has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SweepReport {
    /// Entries looked at; two a connection.
    pub entries: usize,
    /// Entries removed.
    pub removed: usize,
    /// Connections that netfilter masqueraded when the sweep began.
    pub masqueraded: usize,
    /// Entries of connections of this node's own processes when the sweep began.
    pub own: usize,
    /// IPv4 UDP flows among those removed that were not idle: their backend serves no more.
    pub left_v4: usize,
    /// The same of IPv6.
    pub left_v6: usize,
}

/// Entries that are to be forgotten.
#[derive(Default)]
struct Forget {
    keys: Vec<FlowKey>,
    left_v4: usize,
    left_v6: usize,
}

/// Removes what is to be forgotten. `serves`: whether a backend of a service may keep its UDP
/// flows. `now`: CLOCK_MONOTONIC, the programs' clock. With the report come the open connections that
/// are counted.
///
/// # Errors
/// The flows cannot be read. An entry that is gone already is no error.
pub(super) fn sweep(
    flows: &mut Flows,
    serves: impl Fn(u32, Addr, Port) -> bool,
    now: Duration,
) -> io::Result<(SweepReport, OpenConnections)> {
    let entries = hash::read(flows)?;
    let Forget { keys: dead, left_v4, left_v6 } = forget(&entries, clock::in_seconds(now), serves);
    let with = |flag| entries.iter().filter(move |(_, value)| value.flags & flag != 0).count();
    let (masqueraded, own) = (with(flow_flags::MASQUERADE), with(flow_flags::NODE));
    for key in &dead {
        // The programs may have removed it meanwhile.
        let _gone_already = flows.remove(key);
    }
    let (entries_seen, removed) = (entries.len(), dead.len());
    let report = SweepReport { entries: entries_seen, removed, masqueraded, own, left_v4, left_v6 };
    Ok((report, open(&entries, &dead)))
}

/// Open connections of each backend among those that are counted.
fn open(entries: &[(FlowKey, FlowValue)], dead: &[FlowKey]) -> OpenConnections {
    let mut open = OpenConnections::new();
    let mut count = |value: &FlowValue, by| {
        if !is_reverse(value) && value.flags & flow_flags::COUNTED != 0 {
            let (addr, port) = (value.to.dst, value.to.dst_port);
            *open.entry(LoadKey { addr, port, path: counted::FLOWS }).or_default() += by;
        }
    };
    entries.iter().for_each(|(_, value)| count(value, 1));
    let dead: HashSet<&FlowKey> = dead.iter().collect();
    entries.iter().filter(|(key, _)| dead.contains(key)).for_each(|(_, value)| count(value, -1));
    open
}

/// Which entries are to be forgotten. Pure: all facts come from the arguments.
fn forget(
    entries: &[(FlowKey, FlowValue)],
    now: u32,
    serves: impl Fn(u32, Addr, Port) -> bool,
) -> Forget {
    let mut forget = Forget::default();
    let mut reverse: HashMap<FlowKey, (FlowValue, bool)> = entries
        .iter()
        .filter(|(_, value)| is_reverse(value))
        .map(|(key, value)| (*key, (*value, false)))
        .collect();
    let dead = &mut forget.keys;
    for (key, value) in entries.iter().filter(|(_, value)| !is_reverse(value)) {
        let reverse_key = value.to.reversed();
        let other = reverse.get_mut(&reverse_key);
        // A reverse entry that names another frontend belongs to another connection.
        let own = other.filter(|(other, _)| other.to.reversed() == *key);
        let Some((other, has_forward)) = own else {
            if age(value.last_seen, now) >= HALF_AGE {
                dead.push(*key);
            }
            continue;
        };
        *has_forward = true;
        let idle = age(value.last_seen.max(other.last_seen), now);
        let is_old = idle >= FlowState::of(value, other).timeout(key.proto);
        let has_left =
            key.proto == proto::UDP && !serves(value.service, value.to.dst, value.to.dst_port);
        if is_old || has_left {
            dead.push(*key);
        }
        if is_old {
            dead.push(reverse_key);
        } else if has_left {
            let left = if key.dst.is_v4() { &mut forget.left_v4 } else { &mut forget.left_v6 };
            *left += 1;
        }
    }
    let alone = reverse
        .into_iter()
        .filter(|(_, (value, has_forward))| !has_forward && age(value.last_seen, now) >= HALF_AGE);
    dead.extend(alone.map(|(key, _)| key));
    forget
}

const fn is_reverse(value: &FlowValue) -> bool {
    value.flags & flow_flags::REVERSE != 0
}

/// Seconds since `then`; the programs' clock may be a moment ahead.
const fn age(then: u32, now: u32) -> u32 {
    now.saturating_sub(then)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use kproxy_common::flow::timeout;

    use super::*;

    const NOW: u32 = 1_000_000;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    const REPLIED: u16 = flow_flags::REPLIED;

    /// A connection with these flags, whose two halves were last seen so many seconds ago.
    fn flow(proto: u8, there: (u16, u32), back: (u16, u32)) -> [(FlowKey, FlowValue); 2] {
        let key = FlowKey {
            src: addr("203.0.113.9"),
            dst: addr("192.0.2.1"),
            src_port: Port::new(40000),
            dst_port: Port::new(30080),
            proto,
            pad: [0; 3],
        };
        let forward = FlowValue {
            to: FlowKey { dst: addr("10.244.1.5"), dst_port: Port::new(8080), ..key },
            flags: there.0,
            service: 2,
            last_seen: NOW - there.1,
            ..FlowValue::default()
        };
        let reverse = FlowValue {
            to: key.reversed(),
            flags: flow_flags::REVERSE | back.0,
            service: 2,
            last_seen: NOW - back.1,
            ..FlowValue::default()
        };
        [(key, forward), (forward.to.reversed(), reverse)]
    }

    fn dead(entries: &[(FlowKey, FlowValue)], serves: bool) -> usize {
        forget(entries, NOW, |_, _, _| serves).keys.len()
    }

    #[test]
    fn idle_times_depend_on_the_state() {
        let fin = flow_flags::FIN;
        for (proto, there, back, limit) in [
            (proto::TCP, 0, 0, timeout::TCP_OPENING),
            (proto::TCP, 0, REPLIED, timeout::TCP_ESTABLISHED),
            (proto::TCP, fin, REPLIED, timeout::TCP_HALF_CLOSED),
            (proto::TCP, fin, REPLIED | fin, timeout::TCP_CLOSED),
            (proto::TCP, flow_flags::RST, REPLIED, timeout::TCP_RESET),
            (proto::UDP, 0, 0, timeout::UDP_UNREPLIED),
            (proto::UDP, 0, REPLIED, timeout::UDP_REPLIED),
        ] {
            for (ago, count) in [(limit - 1, 0), (limit, 2)] {
                let entries = flow(proto, (there, ago), (back, ago + 5));
                assert_eq!(dead(&entries, true), count, "{proto} {there} {back} after {ago} s");
            }
        }
    }

    #[test]
    fn answers_alone_keep_a_connection_alive() {
        let entries = flow(proto::UDP, (0, timeout::UDP_REPLIED * 3), (REPLIED, 1));
        assert_eq!(dead(&entries, true), 0);
    }

    #[test]
    fn the_way_back_from_a_backend_that_has_left_stays_until_it_is_idle() {
        let way_back = |age| [flow(proto::UDP, (0, age), (REPLIED, age))[1]];
        assert_eq!(dead(&way_back(HALF_AGE - 1), false), 0);
        assert_eq!(dead(&way_back(HALF_AGE), false), 1);
    }

    #[test]
    fn ct_06_ct_07_udp_leaves_a_backend_that_is_gone_and_tcp_stays() {
        let udp = flow(proto::UDP, (0, 0), (REPLIED, 0));
        let gone = forget(&udp, NOW, |_, _, _| false);
        assert_eq!((gone.keys, gone.left_v4, gone.left_v6), (vec![udp[0].0], 1, 0));
        assert_eq!(dead(&flow(proto::TCP, (0, 0), (REPLIED, 0)), false), 0);
    }

    #[test]
    fn halves_go_once_they_are_old_enough() {
        let [forward, reverse] = flow(proto::TCP, (0, HALF_AGE), (REPLIED, HALF_AGE));
        assert_eq!((dead(&[forward], true), dead(&[reverse], true)), (1, 1));
        let [forward, reverse] = flow(proto::TCP, (0, 1), (REPLIED, 1));
        assert_eq!((dead(&[forward], true), dead(&[reverse], true)), (0, 0));
    }

    #[test]
    fn open_connections_are_those_that_are_counted_and_stay() {
        const COUNTED: u16 = flow_flags::COUNTED;
        let open_of = |flags| {
            let entries = flow(proto::TCP, (flags, 0), (REPLIED | flags, 0));
            (open(&entries, &[]).into_values().sum::<i64>(), entries)
        };
        assert_eq!((open_of(0).0, open_of(COUNTED).0), (0, 1));
        let (_, entries) = open_of(COUNTED);
        assert_eq!(open(&entries, &[entries[0].0, entries[1].0]).into_values().sum::<i64>(), 0);
        let key = LoadKey { addr: addr("10.244.1.5"), port: Port::new(8080), path: counted::FLOWS };
        assert_eq!(open(&entries, &[]).get(&key), Some(&1));
    }

    #[test]
    fn a_reverse_entry_of_another_frontend_is_no_partner() {
        let [forward, mut reverse] = flow(proto::TCP, (0, 60), (REPLIED, 60));
        reverse.1.to.src_port = Port::new(30081);
        let gone = forget(&[forward, reverse], NOW, |_, _, _| true).keys;
        assert_eq!(gone.len(), 2, "both halves are orphans");
    }
}
