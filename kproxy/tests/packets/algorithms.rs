//! Load-balancing algorithms on the packet path. Round-robin: see also `rows`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use kproxy_common::{
    flow::flow_flags,
    load::counted::{FLOWS, SOCKETS},
    net::proto::TCP,
    service::{
        frontend_flags,
        service_flags::{LEAST_CONNECTIONS, MAGLEV, RANDOM},
    },
};

use crate::harness::{NEXT, Programs, Tcp, tcp, udp};
use crate::rows::{CLUSTER, programs};

const ROUND_ROBIN: u32 = 0;
const FOUR: [&str; 4] =
    ["L10.244.1.5:8080", "L10.244.1.6:8080", "L10.244.1.7:8080", "L10.244.1.8:8080"];
const A: &str = "10.244.1.5:8080";
const B: &str = "10.244.1.6:8080";
const NODE: &str = "192.0.2.1:30080";
const VIP: &str = "10.96.0.10:80";

fn node(backends: &[&str], algorithm: u32) -> Programs {
    let mut programs = programs(backends);
    if algorithm == MAGLEV {
        programs.service_with_table(CLUSTER, 256, backends);
    }
    programs.algorithm(CLUSTER, algorithm);
    programs
}

fn client(number: u32) -> String {
    format!("203.0.113.{}:{}", number % 250, 20_000 + number / 250)
}

fn connect(programs: &mut Programs, client: &str, to: &str) -> SocketAddr {
    let ran = programs.ingress(&tcp(client, to, Tcp::Syn));
    assert_eq!(ran.action, NEXT, "{client} to {to}");
    ran.destination()
}

/// Connections of each backend after one of each of these clients.
fn shares(programs: &mut Programs, clients: std::ops::Range<u32>) -> BTreeMap<SocketAddr, u32> {
    let mut shares = BTreeMap::new();
    for number in clients {
        *shares.entry(connect(programs, &client(number), NODE)).or_default() += 1;
    }
    shares
}

/// The backend answers, and both sides of a connection say that it is over.
fn close(programs: &mut Programs, client: &str, to: &str, backend: &str) {
    programs.egress(&tcp(backend, client, Tcp::SynAck));
    programs.ingress(&tcp(client, to, Tcp::FinAck));
    programs.egress(&tcp(backend, client, Tcp::FinAck));
}

#[test]
fn rounds_of_services_begin_anywhere() {
    let mut programs = Programs::load();
    let mut firsts = BTreeMap::<SocketAddr, u32>::new();
    for number in 0..100 {
        let (service, vip) = (2 * number + 2, format!("10.96.1.{number}:80"));
        programs.service(service, &FOUR);
        programs.frontend(&vip, TCP, frontend_flags::CLUSTER_IP, service, service);
        *firsts.entry(connect(&mut programs, &client(1), &vip)).or_default() += 1;
    }
    // All of the same backend, or none of one: once in 10^12 runs.
    assert_eq!(firsts.len(), FOUR.len(), "{firsts:?}");
}

#[test]
fn every_algorithm_spreads_connections_over_all_backends() {
    // Round-robin is even but for moves of this thread to another CPU; least connections, too, as
    // nothing ends; the others as chance has it: four deviations.
    for (algorithm, slack) in [(ROUND_ROBIN, 4), (RANDOM, 80), (LEAST_CONNECTIONS, 8), (MAGLEV, 80)]
    {
        let mut programs = node(&FOUR, algorithm);
        let shares = shares(&mut programs, 0..1600);
        assert_eq!(shares.len(), 4, "{algorithm}: {shares:?}");
        let even = shares.values().all(|share| share.abs_diff(400) <= slack);
        assert!(even, "{algorithm}: {shares:?}");
        assert_eq!(programs.drops(), []);
    }
}

#[test]
fn only_least_connections_are_counted() {
    for algorithm in [ROUND_ROBIN, RANDOM, MAGLEV] {
        let mut programs = node(&FOUR, algorithm);
        shares(&mut programs, 0..20);
        assert_eq!(programs.connections(A, FLOWS), None, "{algorithm}");
        let counted = |flags: u16| flags & flow_flags::COUNTED != 0;
        assert!(!programs.flows().iter().any(|(_, value)| counted(value.flags)), "{algorithm}");
    }
}

#[test]
fn least_connections_follow_what_opens_and_ends() {
    let mut programs = node(&FOUR[..2], LEAST_CONNECTIONS);
    let (a, b): (SocketAddr, SocketAddr) = (A.parse().unwrap(), B.parse().unwrap());
    let mut of_a = Vec::new();
    for number in 0..20 {
        if connect(&mut programs, &client(number), NODE) == a {
            of_a.push(client(number));
        }
    }
    assert_eq!(of_a.len(), 10, "of two, the one with fewer is always found");
    assert_eq!(
        (programs.connections(A, FLOWS), programs.connections(B, FLOWS)),
        (Some(10), Some(10))
    );
    // The first is quick and the second slow: the first gets all until they are even again.
    for (i, client) in of_a.iter().take(7).enumerate() {
        if i % 2 == 0 {
            close(&mut programs, client, NODE, A);
            // What comes late ends nothing twice.
            close(&mut programs, client, NODE, A);
        } else {
            programs.egress(&tcp(A, client, Tcp::Rst));
        }
    }
    assert_eq!(
        (programs.connections(A, FLOWS), programs.connections(B, FLOWS)),
        (Some(3), Some(10))
    );
    assert_eq!(shares(&mut programs, 100..107), BTreeMap::from([(a, 7)]));
    assert_eq!(shares(&mut programs, 200..220), BTreeMap::from([(a, 10), (b, 10)]));
    // Sockets of this node count as well, and a number below zero counts as none.
    programs.set_connections(A, SOCKETS, 5);
    assert_eq!(shares(&mut programs, 300..305), BTreeMap::from([(b, 5)]));
    programs.set_connections(A, SOCKETS, -50);
    assert_eq!(shares(&mut programs, 400..405), BTreeMap::from([(a, 5)]));
}

#[test]
fn a_slow_backend_of_four_gets_few_of_the_least_connections() {
    let mut programs = node(&FOUR, LEAST_CONNECTIONS);
    let slow: SocketAddr = A.parse().unwrap();
    let mut of_slow = 0;
    // Every connection ends at once but those of the slow one.
    for number in 0..400 {
        let client = client(number);
        let backend = connect(&mut programs, &client, NODE);
        if backend == slow {
            of_slow += 1;
        } else {
            close(&mut programs, &client, NODE, &backend.to_string());
        }
    }
    assert!(of_slow <= 4, "{of_slow} of 400 for the backend where nothing ends");
    assert_eq!(programs.connections(A, FLOWS), Some(of_slow));
}

#[test]
fn least_connections_count_udp_flows_and_both_families() {
    for (node_port, client, backend) in [
        (NODE, "203.0.113.9:1", A),
        ("[2001:db8::1]:30080", "[2001:db8:9::9]:1", "[fd00:10:244:1::5]:8080"),
    ] {
        let mut programs = node(&[&format!("L{backend}")], LEAST_CONNECTIONS);
        for _ in 0..3 {
            programs.ingress(&udp(client, node_port));
        }
        connect(&mut programs, client, node_port);
        assert_eq!(programs.connections(backend, FLOWS), Some(2), "a flow of each protocol");
    }
}

#[test]
fn a_client_port_on_two_frontends_goes_where_the_algorithm_says() {
    for algorithm in [RANDOM, LEAST_CONNECTIONS, MAGLEV] {
        let mut programs = node(&FOUR[..2], algorithm);
        if algorithm == LEAST_CONNECTIONS {
            programs.set_connections(B, SOCKETS, 1000);
        }
        for number in 0..20 {
            let first = connect(&mut programs, &client(number), NODE);
            let second = connect(&mut programs, &client(number), VIP);
            assert!(algorithm == RANDOM || first == second, "{algorithm}");
        }
        assert_eq!(programs.drops(), [], "{algorithm}");
    }
}

#[test]
fn maglev_leads_a_client_to_the_same_backend_on_every_node() {
    let six = |i: u32| format!("L[fd00:10:244:1::{i:x}]:8080");
    let six: Vec<String> = (1..=5).map(six).collect();
    let six: Vec<&str> = six.iter().map(String::as_str).collect();
    for (frontends, backends, ip) in [
        ([NODE, VIP], &FOUR[..], "203.0.113.9"),
        (["[2001:db8::1]:30080", "[fd00:10:96::a]:80"], &six[..], "[2001:db8:9::9]"),
    ] {
        let (mut one, mut other) = (node(backends, MAGLEV), node(backends, MAGLEV));
        // The other one learnt them in another order, runs none of them, has used its run before.
        let mut learnt: Vec<&str> = backends.iter().map(|at| at.trim_start_matches('L')).collect();
        learnt.rotate_left(2);
        other.service_with_table(CLUSTER, 1500, &learnt);
        shares(&mut other, 0..7);
        let mut seen = BTreeSet::new();
        for port in 1..300 {
            let from = format!("{ip}:{port}");
            for packet in [tcp(&from, frontends[0], Tcp::Syn), udp(&from, frontends[0])] {
                let backend = one.ingress(&packet).destination();
                assert_eq!(other.ingress(&packet).destination(), backend, "{from}");
                seen.insert(backend);
            }
            // Whichever frontend of the service it dials there.
            let (near, far) = (format!("{ip}:{}", 1000 + port), frontends[1]);
            assert_eq!(
                connect(&mut one, &near, frontends[0]),
                connect(&mut other, &near, far),
                "{near}"
            );
        }
        assert_eq!(seen.len(), backends.len());
    }
}

#[test]
fn maglev_moves_few_but_the_clients_of_a_backend_that_goes() {
    const CLIENTS: u32 = 2000;
    let backends: Vec<String> = (1..=10).map(|i| format!("L10.244.1.{i}:8080")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let picks = |backends: &[&str]| -> Vec<SocketAddr> {
        let mut programs = node(backends, MAGLEV);
        (0..CLIENTS).map(|number| connect(&mut programs, &client(number), NODE)).collect()
    };
    let (before, after) = (picks(&backends), picks(&backends[1..]));
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(moved < 2000 * 12 / 100, "{moved} of 2000: more than 1/10 + 2 %");
    assert!(moved > 2000 * 7 / 100, "{moved}: the backend had its share");
}

#[test]
fn without_a_table_maglev_goes_round() {
    let mut programs = programs(&FOUR);
    programs.algorithm(CLUSTER, MAGLEV);
    let shares = shares(&mut programs, 0..40);
    assert!(shares.len() == 4 && shares.values().all(|share| share.abs_diff(10) <= 2));
}

#[test]
fn aff_01_a_client_stays_with_its_backend_whatever_the_algorithm() {
    for algorithm in [ROUND_ROBIN, RANDOM, LEAST_CONNECTIONS, MAGLEV] {
        let mut programs = node(&FOUR, algorithm);
        programs.affinity(CLUSTER, 60);
        let mut first = BTreeMap::new();
        for number in 0..240 {
            let from = format!("203.0.113.{}:{}", number % 60, 1 + number / 60);
            let backend = connect(&mut programs, &from, NODE);
            assert_eq!(*first.entry(number % 60).or_insert(backend), backend, "{algorithm}");
        }
        let backends: BTreeSet<_> = first.values().collect();
        assert_eq!((backends.len(), programs.clients()), (4, 60), "{algorithm}");
        // AFF-02, AFF-04: forgotten, or its backend gone, a client is a new one.
        programs.age_clients(60);
        programs.service(CLUSTER, &FOUR[..1]);
        assert_eq!(connect(&mut programs, "203.0.113.1:900", NODE), A.parse().unwrap());
    }
}

#[test]
fn aff_01_nodes_agree_on_clients_of_maglev_that_they_do_not_remember() {
    let (mut one, mut other) = (node(&FOUR, MAGLEV), node(&FOUR, MAGLEV));
    for programs in [&mut one, &mut other] {
        programs.affinity(CLUSTER, 60);
    }
    for number in 0..100 {
        // Another port: the client is the address.
        let there = connect(&mut one, &format!("203.0.113.{number}:1"), NODE);
        assert_eq!(connect(&mut other, &format!("203.0.113.{number}:2"), NODE), there);
    }
}
