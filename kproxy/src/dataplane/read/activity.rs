//! What goes on now: the flows as few facts each, for `kproxy top`, which reads them again and again.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
};

use kproxy_common::{
    counters::NO_SERVICE,
    flow::{
        flow_flags, flow_state,
        state::{LONE, is_over},
    },
    service::service_port_id,
};

use super::{error::ReadError, pins::Pins};
use crate::dataplane::{connections::Entry, kernel::clock};

/// Seconds after which a connection that the backend has not answered counts as unanswered: its SYN has been
/// repeated by then (RFC 6298: after a second, and two later).
const PATIENCE: u32 = 3;

/// A connection of a service port in the flow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ActiveFlow {
    /// Number of the service port.
    pub id: u32,
    /// Its backend.
    pub backend: SocketAddr,
    /// It is not over, and its time is not up.
    pub open: bool,
    /// TCP or SCTP that the backend has not answered for a while.
    pub unanswered: bool,
    /// What tells it from all others.
    pub identity: u64,
}

impl Pins {
    /// Every connection of a service port, in no order. Reads the clock.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn active_flows(&self) -> Result<Vec<ActiveFlow>, ReadError> {
        let (timeouts, now) = (self.config().timeouts, clock::in_seconds(clock::now()));
        Ok(active(&self.flow_entries()?, &timeouts, now))
    }
}

fn active(entries: &[Entry], timeouts: &[u32], now: u32) -> Vec<ActiveFlow> {
    let of_service = entries.iter().filter(|(_, value)| {
        value.service != NO_SERVICE
            && value.flags & (flow_flags::REVERSE | flow_flags::UNTRANSLATED) == 0
    });
    let flow = |(key, value): &Entry| {
        let idle = now.saturating_sub(value.last_seen);
        let timeout = timeouts.get(usize::from(value.state)).copied().unwrap_or(LONE);
        let is_open = !is_over(value.state) && idle < timeout;
        let mut hasher = DefaultHasher::new();
        (key, value.opened, value.to.dst_port.0).hash(&mut hasher);
        ActiveFlow {
            id: service_port_id(value.service),
            backend: value.to.destination(),
            open: is_open,
            unanswered: is_open && value.state == flow_state::OPENING && idle >= PATIENCE,
            identity: hasher.finish(),
        }
    };
    of_service.map(flow).collect()
}

#[cfg(test)]
mod tests {
    use kproxy_common::{flow::state::TIMEOUTS, net::proto};

    use super::*;
    use crate::dataplane::connections::tests::flow;

    #[test]
    fn connections_are_open_over_or_unanswered() {
        let seen = |state, last: u32| {
            let entries =
                flow((proto::TCP, 40_000), ("203.0.113.9", 40_000), (state, 0), [last; 2]);
            let active = active(&entries, &TIMEOUTS, 1_000);
            let [flow] = active.as_slice() else { panic!("{active:?}") };
            assert_eq!((flow.id, flow.backend), (1, "10.244.1.5:8080".parse().unwrap()));
            (flow.open, flow.unanswered)
        };
        assert_eq!(seen(flow_state::ESTABLISHED, 999), (true, false));
        assert_eq!(seen(flow_state::OPENING, 999), (true, false));
        assert_eq!(seen(flow_state::OPENING, 990), (true, true));
        assert_eq!(seen(flow_state::OPENING, 100), (false, false), "its time is up");
        assert_eq!(seen(flow_state::RESET, 999), (false, false));
    }

    #[test]
    fn flows_are_told_apart() {
        let of = |port| {
            let state = (flow_state::ESTABLISHED, 0);
            let entries = flow((proto::TCP, port), ("203.0.113.9", port), state, [1, 1]);
            active(&entries, &TIMEOUTS, 1)[0].identity
        };
        assert_eq!(of(40_000), of(40_000));
        assert_ne!(of(40_000), of(40_001));
    }
}
