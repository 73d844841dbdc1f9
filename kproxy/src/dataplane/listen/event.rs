//! An event in plain types.

use std::net::{IpAddr, SocketAddr};

use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    net::{Addr, Port},
    service::service_port_id,
    trace::{Event, outcome, trace_hook},
};

use crate::plan::Protocol;

/// What the programs have told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EventRow {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// The CPU.
    pub cpu: u32,
    /// Where it was decided.
    pub hook: Hook,
    /// What has become of it.
    pub outcome: Outcome,
    /// Why, of what is refused or dropped; `None` for a number that this version does not know, too.
    pub reason: Option<DropReason>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Who sends; `None` for a socket that is not bound.
    pub source: Option<IpAddr>,
    /// Its port; `None` for sockets and later fragments.
    pub source_port: Option<u16>,
    /// What is dialled.
    pub frontend: SocketAddr,
    /// The backend that is given.
    pub backend: Option<SocketAddr>,
    /// Number of the service port.
    pub id: Option<u32>,
    /// Index of the packet's device.
    pub device: Option<u32>,
    /// Cookie of the socket's network namespace.
    pub netns: Option<u64>,
    /// The process that calls, where the kernel tells.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
}

/// Where something is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// Packets that come in by an uplink.
    Ingress,
    /// Packets that leave by an uplink.
    Egress,
    /// Packets that come from a pod.
    PodIngress,
    /// Packets that go to a pod.
    PodEgress,
    /// Packets that this node sends to itself.
    NodeEgress,
    /// connect()
    Connect,
    /// sendmsg()
    Sendmsg,
    /// A number that this version does not know.
    Unknown,
}

impl Hook {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::PodIngress => "pod-ingress",
            Self::PodEgress => "pod-egress",
            Self::NodeEgress => "node-egress",
            Self::Connect => "connect",
            Self::Sendmsg => "sendmsg",
            Self::Unknown => "?",
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            trace_hook::INGRESS => Self::Ingress,
            trace_hook::EGRESS => Self::Egress,
            trace_hook::POD_INGRESS => Self::PodIngress,
            trace_hook::POD_EGRESS => Self::PodEgress,
            trace_hook::NODE_EGRESS => Self::NodeEgress,
            trace_hook::CONNECT => Self::Connect,
            trace_hook::SENDMSG => Self::Sendmsg,
            _ => Self::Unknown,
        }
    }
}

/// What becomes of a connection, a packet or a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A backend is given.
    Translated,
    /// Refused, and the sender is told.
    Refused,
    /// Dropped.
    Dropped,
}

impl Outcome {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> Self {
        let some = |number: u32| (number != 0).then_some(number);
        let outcome = match event.what & 0xffff {
            outcome::GIVEN => Outcome::Translated,
            outcome::REFUSED => Outcome::Refused,
            _ => Outcome::Dropped,
        };
        let source_port = event.source_port.get();
        let bytes = event.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            time: event.time,
            cpu: event.cpu,
            hook: Hook::from_number(event.hook.into()),
            outcome,
            reason: DropReason::from_number(event.what >> 16),
            protocol: Protocol::from_number(event.proto),
            source: (!event.source.is_unspecified()).then(|| event.source.into()),
            source_port: (source_port != 0).then_some(source_port),
            frontend: at(event.frontend, event.frontend_port),
            backend: (outcome == Outcome::Translated)
                .then(|| at(event.backend, event.backend_port)),
            id: (event.service != NO_SERVICE).then(|| service_port_id(event.service)),
            device: some(event.device),
            netns: (event.netns != 0).then_some(event.netns),
            pid: some(event.pid),
            comm: (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned()),
        }
    }
}

fn at(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_plain_words() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"curl");
        let event = Event {
            time: 7,
            frontend: addr("10.96.0.10"),
            frontend_port: Port::new(80),
            backend: addr("10.244.1.5"),
            backend_port: Port::new(8080),
            proto: 6,
            hook: trace_hook::CONNECT as u8,
            service: 5,
            what: outcome::GIVEN,
            pid: 12,
            comm,
            ..Event::default()
        };
        let row = EventRow::from(&event);
        assert_eq!(
            (row.hook.name(), row.outcome.name(), row.reason),
            ("connect", "translated", None)
        );
        assert_eq!((row.source, row.source_port, row.id), (None, None, Some(2)));
        assert_eq!(row.backend, Some("10.244.1.5:8080".parse().unwrap()));
        assert_eq!((row.pid, row.comm.as_deref()), (Some(12), Some("curl")));

        let what = (DropReason::NoBackend as u32) << 16 | outcome::REFUSED;
        let row = EventRow::from(&Event { what, service: NO_SERVICE, ..event });
        assert_eq!((row.outcome, row.reason), (Outcome::Refused, Some(DropReason::NoBackend)));
        assert_eq!((row.backend, row.id), (None, None));
        // Whatever the bytes are.
        let nonsense = Event::read_from_bytes(&[0xff; size_of::<Event>()]).unwrap();
        assert_eq!(EventRow::from(&nonsense).hook, Hook::Unknown);
    }

    use zerocopy::FromBytes as _;
}
