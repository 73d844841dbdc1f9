//! Pod-facing ports: packets of pods whose sockets nobody sees.

use std::net::SocketAddr;

use kproxy_common::{
    abi::{MARK_MASQUERADE, map},
    config::{Config, config_flags},
    drop_reason::DropReason,
    filter,
    service::empty_verdict,
};

use crate::harness::{NEXT, Programs, REDIRECT, Ran, SHOT, Tcp, tcp, udp};
use crate::rows::{CLUSTER, programs};

const POD: [&str; 2] = ["10.244.1.7:40000", "[fd00:10:244:1::7]:40000"];
const VIP: [&str; 2] = ["10.96.0.10:80", "[fd00:10:96::a]:80"];
const BACKEND: [&str; 2] = ["10.244.1.5:8080", "[fd00:10:244:1::5]:8080"];
/// The same pod as a backend.
const ITSELF: [&str; 2] = ["10.244.1.7:8080", "[fd00:10:244:1::7]:8080"];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The programs give out source ports, netfilter is not needed.
fn own_ports(programs: &mut Programs) {
    programs.configure(|config| Config {
        snat_first: 20_000,
        snat_count: 100,
        flags: config.flags & !config_flags::NETFILTER,
        ..config
    });
}

fn both(from: &str, to: &str, flags: Tcp) -> [Vec<u8>; 2] {
    [tcp(from, to, flags), udp(from, to)]
}

fn came_back(there: &[u8], back: &Ran) -> bool {
    back.packet[..6] == there[6..12] && back.packet[6..12] == there[..6]
}

#[test]
fn a_pod_reaches_backends_anywhere_as_itself_and_hears_the_frontend() {
    for family in 0..2 {
        for local in ["L", ""] {
            let (pod, vip, backend) = (POD[family], VIP[family], BACKEND[family]);
            let mut programs = programs(&[&format!("{local}{backend}")]);
            let requests = both(pod, vip, Tcp::Syn);
            let answers = both(backend, pod, Tcp::SynAck);
            for (request, answer) in requests.iter().zip(&answers) {
                let there = programs.run("kp_pod_ingress", request);
                // Not masqueraded: the answer comes by this port, wherever the backend is.
                assert_eq!((there.action, there.mark), (NEXT, 0));
                assert_eq!(there.ends(), (at(pod), at(backend)));
                // Another way than out to the pod leaves the answer as it is.
                assert_eq!(programs.ingress(answer).ends(), (at(backend), at(pod)));
                assert_eq!(programs.run("kp_pod_ingress", answer).ends(), (at(backend), at(pod)));
                let back = programs.run("kp_pod_egress", answer);
                assert_eq!((back.action, back.ends()), (NEXT, (at(vip), at(pod))));
            }
            let (connections, _, _) = programs.counters(CLUSTER);
            assert_eq!(connections, 2);
        }
    }
}

#[test]
fn no_port_opens_a_flow_before_answers_are_translated() {
    for family in 0..2 {
        let (pod, vip, backend) = (POD[family], VIP[family], BACKEND[family]);
        let mut programs = programs(&[&format!("L{backend}")]);
        programs.pod_flows(false);
        for request in both(pod, vip, Tcp::Syn) {
            assert_eq!(programs.run("kp_pod_ingress", &request).action, SHOT);
        }
        assert_eq!(programs.drops(), [(CLUSTER, DropReason::AnswersNotReady, 2)]);
        assert!(programs.flows().is_empty());
        // That is what user space waits for.
        let bytes = programs.array::<[u8; 8]>(map::FLOW_FILTER).get(&filter::POD_FLOWS, 0).unwrap();
        assert_ne!(bytes[filter::POD_FLOWS_WANTED], 0);
        programs.pod_flows(true);
        for request in both(pod, vip, Tcp::Syn) {
            assert_eq!(programs.run("kp_pod_ingress", &request).destination(), at(backend));
        }
    }
}

#[test]
fn msq_05_a_pod_that_dials_itself_hears_the_frontend_in_both_directions() {
    for family in 0..2 {
        let (pod, vip, itself) = (POD[family], VIP[family], ITSELF[family]);
        let mut programs = programs(&[&format!("L{itself}")]);
        own_ports(&mut programs);
        for (i, request) in both(pod, vip, Tcp::Syn).iter().enumerate() {
            let there = programs.run("kp_pod_ingress", request);
            assert_eq!((there.action, there.mark), (REDIRECT, 0), "{:?}", programs.drops());
            assert!(came_back(request, &there), "to the pod that sent it");
            let source = there.source();
            assert_eq!((source.ip(), there.destination()), (at(vip).ip(), at(itself)));
            assert!((20_000..20_100).contains(&source.port()), "{source}");
            let answer = &both(itself, &source.to_string(), Tcp::SynAck)[i];
            let back = programs.run("kp_pod_ingress", answer);
            assert_eq!((back.action, back.ends()), (REDIRECT, (at(vip), at(pod))));
            assert!(came_back(answer, &back));
            // Nobody outside has a part in it.
            let forged = programs.ingress(answer);
            assert_eq!((forged.action, forged.ends()), (NEXT, (at(itself), source)));
            // On the way out to the pod nothing is left to do.
            assert_eq!(programs.run("kp_pod_egress", answer).ends(), (at(itself), source));
        }
    }
}

#[test]
fn msq_05_netfilter_masquerades_a_pod_that_dials_itself_where_it_does_so_for_others() {
    for family in 0..2 {
        let (pod, vip, itself) = (POD[family], VIP[family], ITSELF[family]);
        let mut programs = programs(&[&format!("L{itself}")]);
        let there = programs.run("kp_pod_ingress", &tcp(pod, vip, Tcp::Syn));
        assert_eq!((there.action, there.mark), (NEXT, MARK_MASQUERADE));
        assert_eq!(there.ends(), (at(pod), at(itself)));
    }
}

#[test]
fn a_bridge_port_takes_packets_for_the_bridge_and_an_uplink_none_for_others() {
    let mut programs = programs(&["L10.244.1.5:8080"]);
    let mut request = tcp(POD[0], VIP[0], Tcp::Syn);
    request[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    assert_eq!(programs.ingress(&request).destination(), at(VIP[0]));
    assert_eq!(programs.run("kp_pod_ingress", &request).destination(), at(BACKEND[0]));
}

#[test]
fn ver_01_ver_04_ver_16_a_pod_is_refused_or_dropped_at_its_port() {
    for family in 0..2 {
        let mut programs = programs(&[]);
        programs.empty(CLUSTER, empty_verdict::REJECT);
        let unknown = VIP[family].replace(":80", ":81");
        for to in [VIP[family], &unknown] {
            for request in both(POD[family], to, Tcp::Syn) {
                let ran = programs.run("kp_pod_ingress", &request);
                assert_eq!(ran.action, REDIRECT, "{to}");
                assert!(came_back(&request, &ran));
            }
        }
        programs.empty(CLUSTER, empty_verdict::DROP);
        let ran = programs.run("kp_pod_ingress", &tcp(POD[family], VIP[family], Tcp::Syn));
        assert_eq!(ran.action, SHOT);
        let reasons: Vec<_> = programs.drops().iter().map(|(_, reason, n)| (*reason, *n)).collect();
        let wanted = [
            (DropReason::NoBackend, 2),
            (DropReason::NoLocalBackend, 1),
            (DropReason::UnknownPort, 2),
        ];
        assert_eq!(reasons, wanted);
    }
}

#[test]
fn what_is_not_for_a_frontend_passes_a_port_untouched() {
    for family in 0..2 {
        let mut programs = programs(&["L10.244.1.5:8080"]);
        // Before the first flow of a port and afterwards.
        for _ in 0..2 {
            for (program, packet) in [
                ("kp_pod_ingress", tcp(POD[family], BACKEND[family], Tcp::Syn)),
                ("kp_pod_ingress", tcp(POD[family], VIP[family], Tcp::Ack)),
                ("kp_pod_egress", udp(BACKEND[family], POD[family])),
            ] {
                let ran = programs.run(program, &packet);
                assert_eq!((ran.action, ran.packet), (NEXT, packet));
            }
            programs.run("kp_pod_ingress", &udp("10.244.1.8:1", VIP[0]));
        }
        assert_eq!(programs.drops(), []);
    }
}
