//! Connections in the flow table: two entries that belong together, or the one that is there; when their
//! time is up, and which source ports they hold.

use std::collections::HashMap;

use kproxy_common::{
    config::Config,
    flow::{CLAIMS, FlowKey, FlowValue, flow_flags},
};

use super::report::{PortPool, PortUse};
use crate::plan::Protocol;

pub(super) use kproxy_common::flow::state::LONE;

/// An element of the flow table.
pub(super) type Entry = (FlowKey, FlowValue);

/// A connection; one of its entries is there, or both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection<'a> {
    pub(super) forward: Option<&'a Entry>,
    pub(super) reverse: Option<&'a Entry>,
}

/// Every connection of these entries. A reverse entry that names another frontend belongs to another
/// connection.
pub(super) fn connections(entries: &[Entry]) -> Vec<Connection<'_>> {
    let mut reverse: HashMap<&FlowKey, &Entry> = entries
        .iter()
        .filter(|(_, value)| is_reverse(value))
        .map(|entry| (&entry.0, entry))
        .collect();
    let mut all = Vec::with_capacity(entries.len() / 2);
    for forward in entries.iter().filter(|(_, value)| !is_reverse(value)) {
        let key = forward.1.to.reversed();
        let is_own = reverse.get(&key).is_some_and(|other| other.1.to.is_reverse_of(&forward.0));
        let own = if is_own { reverse.remove(&key) } else { None };
        all.push(Connection { forward: Some(forward), reverse: own });
    }
    let alone = reverse.into_values();
    all.extend(alone.map(|entry| Connection { forward: None, reverse: Some(entry) }));
    all
}

impl Connection<'_> {
    /// The entries that are there, the forward one first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.forward.into_iter().chain(self.reverse)
    }

    /// Whether an entry has this flag.
    pub(super) fn has(&self, flag: u16) -> bool {
        self.entries().any(|(_, value)| value.flags & flag != 0)
    }

    /// Whether one of its entries is missing.
    pub(super) const fn is_lone(&self) -> bool {
        self.forward.is_none() || self.reverse.is_none()
    }

    /// Seconds since the last packet of either direction; the programs' clock may be a moment ahead.
    pub(super) fn idle(&self, now: u32) -> u32 {
        let last = self.entries().map(|(_, value)| value.last_seen).max();
        now.saturating_sub(last.unwrap_or(now))
    }

    /// Seconds without a packet after which the programs forget it.
    pub(super) fn timeout(&self, config: &Config) -> u32 {
        let state = self.entries().next().map_or(0, |(_, value)| value.state);
        let of_state = config.timeouts.get(usize::from(state));
        of_state.filter(|_| !self.is_lone()).copied().unwrap_or(LONE)
    }

    /// Whether its time is up: it counts as gone, wherever it is found.
    pub(super) fn is_forgotten(&self, config: &Config, now: u32) -> bool {
        self.idle(now) >= self.timeout(config)
    }
}

const fn is_reverse(value: &FlowValue) -> bool {
    value.flags & flow_flags::REVERSE != 0
}

/// How many of the source ports are taken at the backend where it matters most. Each backend has all
/// of them, at each address that it sees as its client.
pub(super) fn port_pool<'a>(
    connections: impl Iterator<Item = &'a Connection<'a>>,
    config: &Config,
    now: u32,
) -> Option<PortPool> {
    let (first, size) = (config.snat_first, config.snat_count);
    if size == 0 {
        return None;
    }
    let mut taken: HashMap<FlowKey, [u32; 2]> = HashMap::new();
    for connection in connections {
        let Some((key, value)) = connection.reverse else { continue };
        let is_of_pool = value.flags & CLAIMS != 0
            && key.dst_port.get().checked_sub(first).is_some_and(|offset| offset < size);
        if is_of_pool && !connection.is_forgotten(config, now) {
            let mut pool = *key;
            pool.dst_port = Default::default();
            let [used, assured] = taken.entry(pool).or_default();
            *used += 1;
            *assured += u32::from(value.flags & flow_flags::ASSURED != 0);
        }
    }
    let fullest = taken.into_iter().map(|(key, [used, assured])| PortUse {
        backend: key.source(),
        protocol: Protocol::from_number(key.proto).map(Protocol::name),
        used,
        assured,
    });
    // What gives way is no reason for concern while another pool is held.
    let size = u32::from(size);
    let fullest = fullest.max_by_key(|pool| (pool.is_nearly_held(size), pool.used, pool.backend));
    Some(PortPool { size, fullest })
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;

    use kproxy_common::{
        flow::{flow_state, state::TIMEOUTS},
        net::{Addr, Port, proto},
    };

    use super::*;

    const NOW: u32 = 1_000_000;

    pub(in crate::dataplane) fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// Both entries of a connection of this client port with a backend that sees `source`.
    pub(in crate::dataplane) fn flow(
        (proto, client): (u8, u16),
        source: (&str, u16),
        (state, flags): (u8, u16),
        [there, back]: [u32; 2],
    ) -> [Entry; 2] {
        let key = FlowKey {
            src: addr("203.0.113.9"),
            dst: addr("192.0.2.1"),
            src_port: Port::new(client),
            dst_port: Port::new(30_080),
            proto,
            pad: [0; 3],
        };
        let to = FlowKey {
            src: addr(source.0),
            src_port: Port::new(source.1),
            dst: addr("10.244.1.5"),
            dst_port: Port::new(8080),
            ..key
        };
        let forward =
            FlowValue { to, flags, service: 2, state, last_seen: there, ..FlowValue::default() };
        let reverse = FlowValue {
            to: key.reversed(),
            flags: flow_flags::REVERSE | flags,
            last_seen: back,
            ..forward
        };
        [(key, forward), (to.reversed(), reverse)]
    }

    fn own(state: u8, seen: [u32; 2]) -> [Entry; 2] {
        flow((proto::TCP, 40_000), ("203.0.113.9", 40_000), (state, 0), seen)
    }

    #[test]
    fn idle_times_depend_on_the_state_and_both_halves_must_be_idle() {
        let config = Config::default();
        let is_over = |entries: &[Entry]| {
            let [connection] = connections(entries)[..] else { panic!("one connection") };
            connection.is_forgotten(&config, NOW)
        };
        for (state, limit) in (0..flow_state::COUNT).zip(TIMEOUTS) {
            assert!(is_over(&own(state, [NOW - limit, NOW - limit - 5])), "{state}");
            assert!(!is_over(&own(state, [NOW - limit + 1, NOW - limit - 5])), "{state}");
            assert!(!is_over(&own(state, [NOW - limit * 3, NOW - 1])), "{state}");
        }
        for (ago, over) in [(LONE - 1, false), (LONE, true)] {
            for half in own(flow_state::ESTABLISHED, [NOW - ago; 2]) {
                assert_eq!(is_over(&[half]), over, "{half:?}");
            }
        }
    }

    #[test]
    fn a_reverse_entry_of_another_frontend_is_no_partner() {
        let [forward, mut reverse] = own(flow_state::ESTABLISHED, [NOW; 2]);
        assert_eq!(connections(&[reverse, forward]).len(), 1);
        reverse.1.to.src_port = Port::new(30_081);
        let apart = [forward, reverse];
        assert!(connections(&apart).iter().all(Connection::is_lone));
        assert_eq!(connections(&apart).len(), 2);
    }

    #[test]
    fn ports_are_counted_by_backend_and_only_while_they_are_held() {
        let config = Config { snat_first: 20_000, snat_count: 100, ..Config::default() };
        let held = |client, port, (state, flags), seen| {
            let flags = flags | flow_flags::SNAT;
            flow((proto::TCP, client), ("192.0.2.1", port), (state, flags), [seen; 2])
        };
        let (open, assured) = (flow_state::OPENING, (flow_state::ESTABLISHED, flow_flags::ASSURED));
        let mut entries = Vec::new();
        entries.extend(held(1, 20_000, (open, 0), NOW));
        entries.extend(held(2, 20_099, assured, NOW));
        // Forgotten, outside the pool, not of the pool.
        entries.extend(held(3, 20_001, (open, 0), NOW - 1000));
        entries.extend(held(4, 20_100, assured, NOW));
        entries.extend(flow((proto::TCP, 5), ("203.0.113.9", 20_005), assured, [NOW; 2]));
        let pool = |config: &Config| port_pool(connections(&entries).iter(), config, NOW);
        let fullest = PortUse {
            backend: "10.244.1.5:8080".parse().unwrap(),
            protocol: Some("TCP"),
            used: 2,
            assured: 1,
        };
        assert_eq!(pool(&config), Some(PortPool { size: 100, fullest: Some(fullest) }));
        assert_eq!(pool(&Config::default()), None);
    }
}
