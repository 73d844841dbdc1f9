//! Session affinity on the packet path.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kproxy_common::abi::MARK_MASQUERADE;
use kproxy_common::net::proto::{TCP, UDP};
use kproxy_common::service::frontend_flags as kind;

use crate::harness::{NEXT, Programs, Tcp, tcp, udp};
use crate::rows::{CLUSTER, LOCAL, programs};

const FOUR: [&str; 4] =
    ["L10.244.1.5:8080", "L10.244.1.6:8080", "L10.244.1.7:8080", "L10.244.1.8:8080"];
const CLIENT: &str = "203.0.113.9";
const NODE: &str = "192.0.2.1:30080";

fn sticky(backends: &[&str], seconds: u32) -> Programs {
    let mut programs = programs(backends);
    programs.affinity(CLUSTER, seconds);
    programs
}

/// Backend of a new connection from a port of the client.
fn connect(programs: &mut Programs, client: &str, port: u16, to: &str) -> SocketAddr {
    let ran = programs.ingress(&tcp(&format!("{client}:{port}"), to, Tcp::Syn));
    assert_eq!(ran.action, NEXT, "{client}:{port} to {to}");
    ran.destination()
}

/// Backends of new connections from ports of the client.
fn connects(programs: &mut Programs, ports: std::ops::Range<u16>) -> BTreeSet<SocketAddr> {
    ports.map(|port| connect(programs, CLIENT, port, NODE)).collect()
}

#[test]
fn aff_01_aff_10_a_client_stays_with_its_backend_on_every_frontend() {
    for (client, node, vip, backends) in [
        (CLIENT, NODE, "10.96.0.10:80", FOUR),
        (
            "[2001:db8:9::9]",
            "[2001:db8::1]:30080",
            "[fd00:10:96::a]:80",
            [
                "L[fd00:10:244:1::5]:8080",
                "L[fd00:10:244:1::6]:8080",
                "L[fd00:10:244:1::7]:8080",
                "L[fd00:10:244:1::8]:8080",
            ],
        ),
    ] {
        let mut programs = sticky(&backends, 10_800);
        let mut seen = BTreeSet::new();
        for port in 1..16 {
            seen.insert(connect(&mut programs, client, port, node));
            seen.insert(connect(&mut programs, client, port + 100, vip));
            // AFF-09
            seen.insert(
                programs.ingress(&udp(&format!("{client}:{}", port + 200), node)).destination(),
            );
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!((programs.clients(), programs.counters(CLUSTER).0), (1, 45));
        assert_eq!(programs.drops(), []);
    }
}

#[test]
fn aff_03_an_endpoint_that_only_serves_on_is_no_sticky_choice() {
    for gone in FOUR {
        let mut programs = sticky(&[gone], 10_800);
        let first = connect(&mut programs, CLIENT, 1, NODE);
        let others: Vec<&str> = FOUR.into_iter().filter(|backend| *backend != gone).collect();
        programs.service_and_extra(CLUSTER, &others, gone);
        programs.affinity(CLUSTER, 10_800);
        let now = connects(&mut programs, 2..20);
        assert!(now.len() == 1 && !now.contains(&first), "{first}: {now:?}");
    }
}

#[test]
fn aff_01_clients_are_remembered_one_by_one() {
    let mut programs = sticky(&FOUR, 10_800);
    let clients: Vec<String> = (1..=40).map(|i| format!("198.51.100.{i}")).collect();
    let first: Vec<_> = clients.iter().map(|c| connect(&mut programs, c, 1, NODE)).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4, "new clients are spread");
    for (client, backend) in clients.iter().zip(first) {
        assert_eq!(connect(&mut programs, client, 2, NODE), backend, "{client}");
    }
    assert_eq!(programs.clients(), 40);
}

#[test]
fn aff_01_another_service_port_has_a_memory_of_its_own() {
    let mut programs = sticky(&FOUR, 10_800);
    let other = 8;
    programs.frontend("0.0.0.0:30081", TCP, kind::NODE_PORT, other, other);
    programs.service(other, &["L10.244.1.9:8080"]);
    programs.affinity(other, 10_800);
    let first = connect(&mut programs, CLIENT, 1, NODE);
    let elsewhere = connect(&mut programs, CLIENT, 2, "192.0.2.1:30081");
    assert_eq!(elsewhere, "10.244.1.9:8080".parse().unwrap());
    assert_eq!(connect(&mut programs, CLIENT, 3, NODE), first);
    assert_eq!(programs.clients(), 2);
}

#[test]
fn aff_02_the_timeout_starts_anew_with_each_new_connection_and_with_no_other_packet() {
    let mut programs = sticky(&FOUR, 60);
    let first = connect(&mut programs, CLIENT, 1, NODE);
    for port in 2..8 {
        programs.age_clients(50);
        assert_eq!(connect(&mut programs, CLIENT, port, NODE), first, "after 50 s");
    }
    // Packets of an old connection are no new connection.
    let mut seen = BTreeSet::new();
    for port in 8..28 {
        programs.age_clients(50);
        let ack = tcp(&format!("{CLIENT}:1"), NODE, Tcp::Ack);
        assert_eq!(programs.ingress(&ack).destination(), first);
        programs.age_clients(10);
        seen.insert(connect(&mut programs, CLIENT, port, NODE));
    }
    assert!(seen.len() > 1, "after 60 s the client is a new one: {seen:?}");
}

#[test]
fn aff_03_a_backend_outside_the_set_that_applies_is_not_used() {
    let mut programs = sticky(&["L10.244.1.5:8080", "10.244.2.5:8080"], 10_800);
    programs.frontend("0.0.0.0:30080", TCP, kind::NODE_PORT, CLUSTER, LOCAL);
    programs.service(LOCAL, &["L10.244.1.5:8080"]);
    programs.affinity(LOCAL, 10_800);
    let (near, far) = ("10.244.1.5:8080".parse().unwrap(), "10.244.2.5:8080".parse().unwrap());
    // A client that was given the remote backend through the ClusterIP.
    let client = (1..20)
        .map(|i| format!("198.51.100.{i}"))
        .find(|client| connect(&mut programs, client, 1, "10.96.0.10:80") == far)
        .expect("one of the clients gets the other backend");
    assert_eq!(connect(&mut programs, &client, 2, NODE), near, "externalTrafficPolicy Local");
    // The one of both sets is the one it stays with.
    for port in 3..10 {
        assert_eq!(connect(&mut programs, &client, port, "10.96.0.10:80"), near);
        assert_eq!(connect(&mut programs, &client, port + 50, NODE), near);
    }
}

#[test]
fn aff_04_a_backend_that_is_gone_is_replaced_for_its_clients_only() {
    let mut programs = sticky(&FOUR, 10_800);
    let clients: Vec<String> = (1..=20).map(|i| format!("198.51.100.{i}")).collect();
    let first: Vec<_> = clients.iter().map(|c| connect(&mut programs, c, 1, NODE)).collect();
    // Another run of slots, and every position has changed.
    programs.service_at(CLUSTER, 3000, &[&["L10.244.1.1:8080"], &FOUR[1..]].concat());
    let gone: SocketAddr = "10.244.1.5:8080".parse().unwrap();
    for (client, before) in clients.iter().zip(first) {
        let now = connect(&mut programs, client, 2, NODE);
        assert_eq!(now == before, before != gone, "{client}: {before}, then {now}");
        assert_eq!(connect(&mut programs, client, 3, NODE), now, "{client}");
    }
}

#[test]
fn aff_07_affinity_is_switched_on_and_off_between_connections() {
    let mut programs = programs(&FOUR);
    assert_eq!(connects(&mut programs, 1..21).len(), 4);
    assert_eq!(programs.clients(), 0, "without affinity nothing is remembered");
    programs.affinity(CLUSTER, 10_800);
    assert_eq!(connects(&mut programs, 21..41).len(), 1);
    programs.affinity(CLUSTER, 0);
    assert_eq!(connects(&mut programs, 41..61).len(), 4);
    // A shorter timeout counts at once.
    programs.affinity(CLUSTER, 10_800);
    connects(&mut programs, 61..62);
    programs.age_clients(100);
    programs.affinity(CLUSTER, 100);
    let mut seen = BTreeSet::new();
    for port in 62..82 {
        seen.extend(connects(&mut programs, port..port + 1));
        programs.age_clients(100);
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn a_backend_of_a_large_set_is_remembered_with_all_that_its_slot_says() {
    let backends: Vec<String> =
        (0..600).map(|i| format!("10.244.{}.{}:8080", 2 + i / 200, 1 + i % 200)).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let mut programs = sticky(&[], 10_800);
    programs.service_at(CLUSTER, 1024, &backends);
    let syn = |programs: &mut Programs, client: u32, port: u16| {
        let client = format!("198.51.{}.{}:{port}", client / 250, client % 250);
        let ran = programs.ingress(&tcp(&client, NODE, Tcp::Syn));
        assert_eq!(ran.mark, MARK_MASQUERADE, "all of them are elsewhere");
        ran.destination()
    };
    let first: Vec<_> = (0..300).map(|client| syn(&mut programs, client, 1)).collect();
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 256);
    for (client, backend) in (0..300).zip(first) {
        assert_eq!(syn(&mut programs, client, 2), backend, "client {client}");
    }
}

#[test]
fn aff_10_a_client_port_on_two_frontends_keeps_its_backend() {
    let mut programs = sticky(&FOUR, 10_800);
    let first = connect(&mut programs, CLIENT, 1, NODE);
    // The backend tells the connections apart by another port of the client.
    let second = connect(&mut programs, CLIENT, 1, "10.96.0.10:80");
    assert_eq!(first, second);
    for port in 2..6 {
        assert_eq!(connect(&mut programs, CLIENT, port, NODE), first, "the backend is kept");
    }
    assert_eq!(programs.drops(), []);
}

#[test]
fn aff_09_udp_datagrams_of_one_flow_are_one_connection() {
    let mut programs = sticky(&FOUR, 60);
    programs.frontend("0.0.0.0:30080", UDP, kind::NODE_PORT, CLUSTER, CLUSTER);
    let packet = udp(&format!("{CLIENT}:1"), NODE);
    let first = programs.ingress(&packet).destination();
    programs.age_clients(60);
    assert_eq!(programs.ingress(&packet).destination(), first, "the flow lives");
    assert_eq!(programs.counters(CLUSTER).0, 1);
}
