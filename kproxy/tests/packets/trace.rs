//! What `kproxy trace` is told: each drop with its reason and ends, each new flow with its backend, nothing of
//! packets of open flows, nothing when nobody listens, and never more than was asked for.

use std::net::SocketAddr;

use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    net::{Addr, Port, proto},
    service::empty_verdict,
    trace::{Event, Trace, bit_of_address, bit_of_service, outcome, trace_hook},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    drops::provoke,
    harness::{NEXT, Programs, Tcp, knows_where_packets_come_from, tcp},
    snat::{SERVICE, on_a_node},
};

const CLIENT: &str = "203.0.113.9:40000";
const NODE_PORT: &str = "192.0.2.1:30080";
const NEAR: &str = "10.244.1.5:8080";

/// Everything, for a minute from now on.
fn all() -> Trace {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    let until = (now.tv_sec() as u64 + 60) * 1_000_000_000;
    Trace { until, reasons: !0, services: !0, ends: !0, a_second: 10_000, pad: 0 }
}

fn at(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.get())
}

fn reason(event: &Event) -> Option<DropReason> {
    DropReason::from_number(event.what >> 16)
}

/// Refuses every connection from outside.
fn refuse(programs: &mut Programs, packets: u16) {
    programs.empty(SERVICE, empty_verdict::REJECT);
    for port in 1..=packets {
        programs.ingress(&tcp(&format!("203.0.113.9:{port}"), NODE_PORT, Tcp::Syn));
    }
}

#[test]
fn every_drop_is_told_with_its_reason_and_ends() {
    for wanted in DropReason::ALL {
        if wanted == DropReason::NoFlow && !knows_where_packets_come_from() {
            continue;
        }
        on_a_node(move |programs| {
            programs.listen(all());
            provoke(wanted, programs);
            let events = programs.events();
            let event = events.iter().rfind(|event| reason(event) == Some(wanted));
            let event = event.unwrap_or_else(|| panic!("{wanted:?}: {events:?}"));
            use DropReason::{NoBackend, NoFlow, UnknownPort};
            let is_refusal = matches!(wanted, NoBackend | UnknownPort | NoFlow);
            let what = if is_refusal { outcome::REFUSED } else { outcome::DROPPED };
            assert_eq!(event.what & 0xffff, what, "{wanted:?}: {event:?}");
            assert_ne!(event.source, Addr::default(), "{wanted:?}: {event:?}");
            assert_ne!(event.frontend, Addr::default(), "{wanted:?}: {event:?}");
            assert_eq!((event.backend, event.backend_port), (Addr::default(), Port(0)));
            assert!(event.time != 0 && event.device != 0 && event.pid == 0, "{event:?}");
        });
    }
}

#[test]
fn a_new_flow_is_told_once_with_its_backend() {
    on_a_node(|programs| {
        programs.service(SERVICE, &[&format!("L{NEAR}")]);
        programs.listen(all());
        assert_eq!(programs.ingress(&tcp(CLIENT, NODE_PORT, Tcp::Syn)).action, NEXT);
        programs.egress(&tcp(NEAR, CLIENT, Tcp::SynAck));
        programs.ingress(&tcp(CLIENT, NODE_PORT, Tcp::Ack));
        let events = programs.events();
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(at(event.source, event.source_port), CLIENT.parse().unwrap());
        assert_eq!(at(event.frontend, event.frontend_port), NODE_PORT.parse().unwrap());
        assert_eq!(at(event.backend, event.backend_port), NEAR.parse().unwrap());
        assert_eq!((event.what, event.service), (outcome::GIVEN, SERVICE));
        assert_eq!((event.proto, u32::from(event.hook)), (proto::TCP, trace_hook::INGRESS));
    });
}

#[test]
fn nothing_is_told_when_nobody_listens_or_the_lease_has_ended() {
    on_a_node(|programs| {
        refuse(programs, 3);
        assert_eq!((programs.events(), programs.untold()), (vec![], 0));
        programs.listen(Trace { until: 1, ..all() });
        refuse(programs, 3);
        assert_eq!((programs.events(), programs.untold()), (vec![], 0));
        assert_eq!(programs.listened().until, 0, "the first event that is too late ends it");
    });
}

#[test]
fn a_flood_is_told_so_many_times_a_second_and_the_rest_is_counted() {
    const PACKETS: u16 = 500;
    on_a_node(|programs| {
        programs.listen(Trace { a_second: 5, ..all() });
        refuse(programs, PACKETS);
        let (told, untold) = (programs.events().len() as u64, programs.untold());
        assert_eq!(told + untold, u64::from(PACKETS));
        // Seconds may go by meanwhile.
        assert!((5..=100).contains(&told), "{told}");
        programs.listen(all());
        for _ in 0..10 {
            refuse(programs, PACKETS);
        }
        let all = u64::from(PACKETS) * 11;
        let told = told + programs.events().len() as u64;
        assert!(programs.untold() > untold, "a ring that nobody reads is full at some time");
        assert_eq!(told + programs.untold(), all);
    });
}

#[test]
fn only_what_is_wanted_is_told() {
    on_a_node(|programs| {
        let bit = |text: &str| bit_of_address(&text.parse::<std::net::IpAddr>().unwrap().into());
        let service = bit_of_service(SERVICE, &Addr::default());
        let refused = 1 << DropReason::NoBackend as u32;
        for (trace, wanted) in [
            (Trace { reasons: refused, ..all() }, true),
            (Trace { reasons: !refused, ..all() }, false),
            (Trace { services: service, ..all() }, true),
            (Trace { services: !service, ..all() }, false),
            (Trace { ends: bit("203.0.113.9"), ..all() }, true),
            (Trace { ends: bit("192.0.2.1"), ..all() }, true),
            (Trace { ends: !bit("203.0.113.9") & !bit("192.0.2.1"), ..all() }, false),
        ] {
            programs.listen(trace);
            refuse(programs, 1);
            let events = programs.events();
            assert_eq!(!events.is_empty(), wanted, "{trace:?}: {events:?}");
            assert!(events.iter().all(|event| event.service != NO_SERVICE));
        }
        assert_eq!(programs.untold(), 0, "what nobody wants is not missed");
    });
}
