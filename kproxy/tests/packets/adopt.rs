//! Connections that kube-proxy has opened go on by netfilter, and kproxy gives out none of their source ports.

use std::net::SocketAddr;

use aya::programs::{TestRun as _, TestRunOptions};
use kproxy_common::{
    abi::{map, program},
    config::Config,
    drop_reason::DropReason,
    filter,
    flow::{
        FlowKey, FlowValue,
        adopt::{ADOPTED, AdoptQuery, Adopted},
        flow_state,
    },
    net::proto::{TCP, UDP},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    harness::{NEXT, Programs, REDIRECT, Ran, Tcp, tcp, udp},
    snat::{FAMILIES, SERVICE, on_a_node},
};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A connection as netfilter has it: from the client to the frontend, from the backend to what it sees.
fn connection(proto: u8, [client, frontend]: [&str; 2], [backend, source]: [&str; 2]) -> Adopted {
    Adopted {
        key: FlowKey::between(at(client), at(frontend), proto),
        answer: FlowKey::between(at(backend), at(source), proto),
        state: if proto == UDP { flow_state::STREAM } else { flow_state::ESTABLISHED },
        left: 100,
        pad: [0; 3],
    }
}

/// Tells the programs of them; how many are left to netfilter.
fn adopt(programs: &mut Programs, connections: &[Adopted]) -> usize {
    let mut adopted = 0;
    for some in connections.chunks(ADOPTED) {
        let mut query = AdoptQuery {
            ethernet: [0; 16],
            count: u32::try_from(some.len()).unwrap(),
            adopted: 0,
            connections: [Adopted::default(); ADOPTED],
        };
        query.connections[..some.len()].copy_from_slice(some);
        let mut out = vec![0; size_of::<AdoptQuery>()];
        let options = TestRunOptions {
            data_in: Some(query.as_bytes()),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        programs.program(program::ADOPT).test_run(options).unwrap();
        adopted += AdoptQuery::read_from_bytes(&out).unwrap().adopted as usize;
    }
    adopted
}

fn forget_all(programs: &mut Programs) {
    for (key, _) in programs.flows() {
        programs.hash::<FlowKey, FlowValue>(map::FLOWS).remove(&key).unwrap();
    }
}

/// Whether it passed as it was, past the addresses of the harness's link.
fn is_unchanged(ran: &Ran, packet: &[u8]) -> bool {
    ran.action == NEXT && ran.packet[12..] == packet[12..]
}

#[test]
fn udp_of_kube_proxy_passes_both_ways_until_its_backend_serves_no_more() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let (client, frontend) = (family.client, family.node_port);
            forget_all(programs);
            programs.service(SERVICE, &[family.backend]);
            let source = frontend.replace("30080", "55001");
            let known = connection(UDP, [client, frontend], [family.backend, &source]);
            for _again in 0..2 {
                assert_eq!(adopt(programs, &[known]), 1, "{client}");
            }
            for packet in [udp(client, frontend), udp(family.backend, &source)] {
                let ran = programs.ingress(&packet);
                assert!(is_unchanged(&ran, &packet), "{client}: {ran:?}");
            }
            // Netfilter opens it anew, with another port; and has forgotten it when its time is up.
            let other_source = frontend.replace("30080", "55002");
            let mut anew = connection(UDP, [client, frontend], [family.backend, &other_source]);
            assert_eq!(adopt(programs, &[anew]), 1);
            let flows = programs.flows();
            assert_eq!(flows.len(), 2, "{flows:?}");
            assert!(flows.iter().any(|(key, _)| *key == anew.answer), "{flows:?}");
            forget_all(programs);
            anew.left = 0;
            adopt(programs, &[anew]);
            assert_eq!(programs.ingress(&udp(client, frontend)).action, REDIRECT, "{client}");
            forget_all(programs);
            assert_eq!(adopt(programs, &[known]), 1);
            // Another client is served by kproxy.
            let other = client.replace("40000", "40001");
            assert_eq!(programs.ingress(&udp(&other, frontend)).action, REDIRECT);
            // The backend goes: the client is led to another one.
            let elsewhere = family.backend.replace("8080", "8081");
            programs.service(SERVICE, &[&elsewhere]);
            let ran = programs.ingress(&udp(client, frontend));
            assert_eq!(ran.action, REDIRECT, "{:?}", programs.drops());
            assert_eq!(ran.destination(), at(&elsewhere));
            // And netfilter's word of before counts no more.
            assert_eq!(adopt(programs, &[known]), 0);
        }
    });
}

#[test]
fn no_source_port_of_kube_proxy_is_given_out_again() {
    on_a_node(|programs| {
        let family = &FAMILIES[0];
        programs.service(SERVICE, &[family.backend]);
        programs.configure(|config| Config { snat_first: 20_000, snat_count: 4, ..config });
        let clients: Vec<String> = (0..4).map(|n| format!("203.0.113.9:{}", 41_000 + n)).collect();
        let source = |n: usize| format!("192.0.2.1:{}", 20_000 + n);
        let known: Vec<Adopted> = (0..3)
            .map(|n| {
                let ends = [clients[n].as_str(), family.node_port];
                connection(TCP, ends, [family.backend, &source(n)])
            })
            .collect();
        assert_eq!(adopt(programs, &known), 3);
        // What netfilter has: no flow of kproxy's, either way.
        for packet in [
            tcp(&clients[0], family.node_port, Tcp::Ack),
            tcp(family.backend, &source(0), Tcp::Ack),
            tcp(family.backend, &source(0), Tcp::Rst),
        ] {
            let ran = programs.ingress(&packet);
            assert!(is_unchanged(&ran, &packet), "{ran:?}");
        }
        // The one port that is left, and no other; the client may be one whose connection is over.
        let syn = |client: &str| tcp(client, family.node_port, Tcp::Syn);
        let ran = programs.ingress(&syn(&clients[0]));
        assert_eq!((ran.action, ran.source()), (REDIRECT, at(&source(3))));
        // It is half-open and gives way, netfilter's do not.
        let ran = crate::snat::dialled(programs, &syn(&clients[1]));
        assert_eq!((ran.action, ran.source()), (REDIRECT, at(&source(3))));
        programs.ingress(&tcp(family.backend, &source(3), Tcp::SynAck));
        programs.ingress(&tcp(&clients[1], family.node_port, Tcp::Ack));
        programs.ingress(&syn(&clients[2]));
        let refused = programs.drops();
        assert!(refused.iter().any(|row| row.1 == DropReason::NoSourcePort), "{refused:?}");
    });
}

#[test]
fn what_leads_to_no_frontend_is_none_of_kproxys_business() {
    on_a_node(|programs| {
        let family = &FAMILIES[0];
        let to = [family.backend, "192.0.2.1:55001"];
        for (proto, frontend, left) in [
            (TCP, "192.0.2.1:30081", 0),
            (UDP, "198.51.100.1:80", 0),
            (TCP, family.node_port, 1),
            (UDP, family.node_port, 1),
        ] {
            programs.service(SERVICE, &[family.backend]);
            let known = connection(proto, [family.client, frontend], to);
            assert_eq!(adopt(programs, &[known]), left, "{proto} {frontend}");
        }
        // Nine of one kind: more than one query. The filter is held back until all are known.
        let mut words = programs.array::<u64>(map::FILTER);
        (0..filter::WORDS).for_each(|word| words.set(word, 0, 0).unwrap());
        let many: Vec<Adopted> = (0..9)
            .map(|n| {
                let client = format!("203.0.113.8:{}", 41_000 + n);
                let source = format!("192.0.2.1:{}", 55_100 + n);
                connection(TCP, [&client, family.node_port], [family.backend, &source])
            })
            .collect();
        assert_eq!(adopt(programs, &many), 9);
    });
}
