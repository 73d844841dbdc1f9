//! No drop without a reason and a counter: each reason is provoked, and as many packets are counted as
//! did not go on.

use std::process::Command;

use kproxy_common::{
    abi::map,
    config::{Config, Range, SERVICE_RANGES},
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue},
    net::{
        Port,
        proto::{SCTP, TCP},
    },
    service::{Service, Word, empty_verdict, frontend_flags, service_flags},
};

use crate::{
    harness::{
        Programs, Ran, SHOT, Tcp, knows_where_packets_come_from, tcp, udp, udp_of, with_header,
    },
    parts::cut,
    sctp::{INIT, sctp},
    snat::{FAMILIES, SERVICE, on_a_node},
};

const CLIENT: &str = "203.0.113.9:40000";
const NODE_PORT: &str = "192.0.2.1:30080";
const VIP: &str = "10.96.0.10:80";
const POD: &str = "10.244.1.9:5000";
const NEAR: &str = "L10.244.1.5:8080";

#[test]
fn every_reason_is_counted_once_for_each_packet_that_does_not_go_on() {
    for reason in DropReason::ALL {
        if reason == DropReason::NoFlow && !knows_where_packets_come_from() {
            continue;
        }
        on_a_node(move |programs| {
            let ran = provoke(reason, programs);
            let held = programs.notes().len();
            let drops = programs.drops();
            assert!(drops.iter().any(|row| row.1 == reason), "{reason:?}: {drops:?}");
            // Of what is refused the sender is told; the answer is counted if it is dropped, too.
            let is_refusal = |reason| {
                use DropReason::{NoBackend, NoFlow, UnknownPort};
                matches!(reason, NoBackend | UnknownPort | NoFlow)
            };
            let counted: u64 = drops.iter().filter(|row| !is_refusal(row.1)).map(|row| row.2).sum();
            let ended = ran.iter().filter(|ran| ran.action == SHOT).count();
            assert_eq!(counted as usize + held, ended, "{reason:?}: {drops:?}");
        });
    }
}

/// Runs packets, the last of which is dropped for this reason.
pub(crate) fn provoke(reason: DropReason, programs: &mut Programs) -> Vec<Ran> {
    let syn = tcp(CLIENT, NODE_PORT, Tcp::Syn);
    match reason {
        DropReason::NoBackend => programs.empty(SERVICE, empty_verdict::REJECT),
        DropReason::NoLocalBackend => programs.empty(SERVICE, empty_verdict::DROP),
        DropReason::UnknownPort => {
            return vec![programs.ingress(&tcp(CLIENT, "10.96.0.10:81", Tcp::Syn))];
        }
        DropReason::FlowTableFull => {
            programs.service(SERVICE, &[NEAR]);
            fill_flows(programs);
            // The kernel lets a hash exceed its size by a batch for each CPU.
            let ports = 1..1000;
            return ports
                .map(|port| {
                    let client = format!("203.0.113.9:{port}");
                    programs.ingress(&tcp(&client, NODE_PORT, Tcp::Syn))
                })
                .collect();
        }
        DropReason::RewriteFailed => {
            // The checksum of SCTP is over bytes that a first fragment does not have.
            programs.service(SERVICE, &[NEAR]);
            programs.frontend("0.0.0.0:30080", SCTP, frontend_flags::NODE_PORT, SERVICE, SERVICE);
            let first = with_header(&sctp(CLIENT, NODE_PORT, INIT, 32), |header| {
                header.dont_fragment = false;
                header.more_fragments = true;
            });
            return vec![programs.ingress(&first)];
        }
        DropReason::BadMap => {
            // A run that ends behind the last slot.
            let word = Word { first: 1 << 20, count: 1, generation: 1 }.pack();
            let entry = Service { word, flags: service_flags::IN_USE, ..Service::default() };
            programs.array::<Service>(map::SERVICES).set(SERVICE, entry, 0).unwrap();
        }
        DropReason::NoSourcePort => {
            programs.service(SERVICE, &[FAMILIES[0].backend]);
            programs.configure(|config| Config { snat_count: 1, ..config });
            let first = programs.ingress(&syn);
            let source = first.source().to_string();
            let answer = programs.ingress(&tcp(FAMILIES[0].backend, &source, Tcp::SynAck));
            let confirmed = programs.ingress(&tcp(CLIENT, NODE_PORT, Tcp::Ack));
            let second = programs.ingress(&tcp("203.0.113.9:2", NODE_PORT, Tcp::Syn));
            return vec![first, answer, confirmed, second];
        }
        DropReason::NoRoute => {
            programs.service(SERVICE, &[FAMILIES[0].backend]);
            let first = programs.ingress(&syn);
            let deleted = Command::new("ip").args(["route", "del", "default"]).status().unwrap();
            assert!(deleted.success());
            return vec![first, programs.ingress(&tcp(CLIENT, NODE_PORT, Tcp::Ack))];
        }
        DropReason::RefusalLimit => {
            // Nobody answers a group.
            programs.empty(SERVICE, empty_verdict::REJECT);
            return vec![programs.ingress(&udp("224.0.0.1:1", NODE_PORT))];
        }
        DropReason::AnswersNotReady => {
            programs.service(SERVICE, &[NEAR]);
            programs.pod_flows(false);
            return vec![programs.run("kp_pod_ingress", &tcp(POD, VIP, Tcp::Syn))];
        }
        DropReason::FragmentLimit => {
            // More copies than the buffer holds while nobody reads it.
            programs.service(SERVICE, &[NEAR]);
            let early = cut(&udp_of(POD, VIP, 2500), 7)[1].clone();
            return (0..700).map(|_| programs.run("kp_pod_ingress", &early)).collect();
        }
        DropReason::FragmentAlone => {
            programs.empty(SERVICE, empty_verdict::DROP);
            let fragments = cut(&udp_of(POD, VIP, 2500), 7);
            return fragments.iter().map(|part| programs.run("kp_pod_ingress", part)).collect();
        }
        DropReason::NoFlow => {
            programs.comes_from(1);
            return vec![programs.egress(&tcp(CLIENT, VIP, Tcp::Ack))];
        }
        DropReason::FreeServiceAddress => {
            let mut ranges = [Range::default(); SERVICE_RANGES];
            ranges[0] = Range::new("10.96.0.0".parse().unwrap(), 16);
            programs.configure(|config| Config {
                service: [ranges, [Range::default(); SERVICE_RANGES]],
                ..config
            });
            return vec![programs.egress(&tcp(POD, "10.96.0.99:80", Tcp::Syn))];
        }
        DropReason::SourceNotAllowed => {
            programs.service(SERVICE, &[NEAR]);
            let flags = frontend_flags::SOURCE_RANGES;
            programs.frontend("198.51.100.7:80", TCP, flags, SERVICE, SERVICE);
            return vec![programs.ingress(&tcp(CLIENT, "198.51.100.7:80", Tcp::Syn))];
        }
    }
    vec![programs.ingress(&syn)]
}

/// Fills the flow table with entries of nobody.
fn fill_flows(programs: &mut Programs) {
    let mut flows = programs.hash::<FlowKey, FlowValue>(map::FLOWS);
    let key = |number: u32| FlowKey {
        src_port: Port::new(number as u16),
        dst_port: Port::new((number >> 16) as u16),
        proto: TCP,
        ..FlowKey::default()
    };
    let is_full =
        (0..1 << 18).any(|number| flows.insert(key(number), FlowValue::default(), 0).is_err());
    assert!(is_full);
}
