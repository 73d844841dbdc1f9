//! A day without the daemon: nobody sweeps, nobody writes. The programs judge the age of an entry where they
//! find it, so the day is simulated by entries that are older by it.

use std::net::SocketAddr;

use kproxy_common::{
    flow::unassured,
    net::proto::{TCP, UDP},
    service::frontend_flags as kind,
};

use crate::{
    harness::{NEXT, Programs, Tcp, tcp, udp},
    rows::{CLUSTER, programs},
};

const DAY: u32 = 24 * 60 * 60;
const NODE: &str = "192.0.2.1:30080";
const BACKEND: &str = "10.244.1.5:8080";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client(number: usize) -> String {
    format!("198.51.{}.{}:{}", number / 250, number % 250, 1024 + number)
}

fn establish(programs: &mut Programs, client: &str) {
    programs.ingress(&tcp(client, NODE, Tcp::Syn));
    programs.egress(&tcp(BACKEND, client, Tcp::SynAck));
    programs.ingress(&tcp(client, NODE, Tcp::Ack));
}

/// Leaves a flow of any state behind, of one of two protocols.
fn leave(programs: &mut Programs, number: usize) {
    let client = client(number);
    let (syn, fin) = (tcp(&client, NODE, Tcp::Syn), tcp(&client, NODE, Tcp::FinAck));
    match number % 7 {
        // Half-open, and answered by the backend alone.
        0 => drop(programs.ingress(&syn)),
        1 => {
            programs.ingress(&syn);
            programs.egress(&tcp(BACKEND, &client, Tcp::SynAck));
        }
        // Both ends are gone without a word.
        2 => establish(programs, &client),
        // Half closed, closed, reset.
        3 => {
            establish(programs, &client);
            programs.ingress(&fin);
        }
        4 => {
            establish(programs, &client);
            programs.ingress(&fin);
            programs.egress(&tcp(BACKEND, &client, Tcp::FinAck));
        }
        5 => {
            establish(programs, &client);
            programs.ingress(&tcp(&client, NODE, Tcp::Rst));
        }
        // An exchange.
        _ => {
            programs.ingress(&udp(&client, NODE));
            programs.egress(&udp(BACKEND, &client));
        }
    }
}

#[test]
fn a_day_without_the_daemon_ends_nothing_that_goes_on() {
    let mut programs = programs(&[&format!("L{BACKEND}")]);
    let [busy, quiet, stream] = [1, 2, 3].map(client);
    establish(&mut programs, &busy);
    establish(&mut programs, &quiet);
    for _ in 0..2 {
        programs.ingress(&udp(&stream, NODE));
        programs.egress(&udp(BACKEND, &stream));
        programs.age_flows(10);
    }
    // A datagram each way every 100 s, a segment every hour; one connection says nothing for a day.
    for second in (0..DAY - 200).step_by(100) {
        programs.age_flows(100);
        let there = programs.ingress(&udp(&stream, NODE));
        assert_eq!(there.destination(), at(BACKEND), "after {second} s");
        assert_eq!(programs.egress(&udp(BACKEND, &stream)).source(), at(NODE), "after {second} s");
        if second % 3600 == 0 {
            let there = programs.ingress(&tcp(&busy, NODE, Tcp::Ack));
            assert_eq!(there.destination(), at(BACKEND), "after {second} s");
        }
    }
    // The stream is one flow, and each connection is the one that it was.
    assert_eq!(programs.counters(CLUSTER).0, 3);
    for client in [&busy, &quiet] {
        assert_eq!(programs.ingress(&tcp(client, NODE, Tcp::Ack)).destination(), at(BACKEND));
        assert_eq!(programs.egress(&tcp(BACKEND, client, Tcp::Ack)).source(), at(NODE));
    }
    assert_eq!((programs.assured(), programs.drops()), (3, vec![]));
}

#[test]
fn a_table_full_of_what_a_day_has_left_refuses_nobody() {
    let mut programs = Programs::with_flows(512);
    for proto in [TCP, UDP] {
        programs.frontend("0.0.0.0:30080", proto, kind::NODE_PORT, CLUSTER, CLUSTER);
    }
    programs.address("192.0.2.1", kind::NODE_ADDRESS);
    programs.service(CLUSTER, &[&format!("L{BACKEND}")]);
    let kept = client(2500);
    establish(&mut programs, &kept);
    // Far more than the table holds.
    (0..2000).for_each(|number| leave(&mut programs, number));
    let (full, most) = (programs.flows().len(), unassured::most_assured(512));
    assert!(full > 500, "{full}");
    assert_eq!(programs.assured(), u64::from(most), "all that may be");
    programs.age_flows(DAY / 2);
    programs.ingress(&tcp(&kept, NODE, Tcp::Ack));
    programs.egress(&tcp(BACKEND, &kept, Tcp::Ack));
    programs.age_flows(DAY / 2 + 1);
    programs.age_unassured();
    let drops = programs.drops();
    // The client's port may be one of a day ago.
    for number in (1990..2200).chain(0..400) {
        // They come within hours. In the eighth of the table that assured flows, of which nobody has looked at
        // most for a day, have left over, each stays until younger ones need its place.
        if number % 8 == 0 {
            programs.age_unassured();
        }
        let client = client(number);
        let syn = programs.ingress(&tcp(&client, NODE, Tcp::Syn));
        assert_eq!((syn.action, syn.destination()), (NEXT, at(BACKEND)), "{client}");
        let answer = programs.egress(&tcp(BACKEND, &client, Tcp::SynAck));
        assert_eq!(answer.ends(), (at(NODE), at(&client)));
        assert_eq!(programs.ingress(&tcp(&client, NODE, Tcp::Ack)).destination(), at(BACKEND));
    }
    assert_eq!(programs.ingress(&tcp(&kept, NODE, Tcp::Ack)).destination(), at(BACKEND));
    assert_eq!(programs.egress(&tcp(BACKEND, &kept, Tcp::Ack)).source(), at(NODE));
    assert_eq!(programs.drops(), drops);
}

#[test]
fn remembered_clients_of_a_day_ago_give_way() {
    let backends: Vec<String> = (1..=8).map(|host| format!("L10.244.1.{host}:8080")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let mut programs = programs(&backends);
    programs.affinity(CLUSTER, 10_800);
    let dial = |programs: &mut Programs, number: usize, port: u16| {
        let from = format!("198.51.{}.{}:{port}", number / 250, number % 250);
        let ran = programs.ingress(&tcp(&from, NODE, Tcp::Syn));
        assert_eq!(ran.action, NEXT, "{from}");
        ran.destination()
    };
    // As many as the map holds.
    let before: Vec<SocketAddr> = (0..4096).map(|number| dial(&mut programs, number, 1)).collect();
    programs.age_clients(u64::from(DAY));
    programs.age_flows(DAY);
    // Nobody is bound to what was a day ago, and all are remembered anew, others as well.
    dial(&mut programs, 4999, 1);
    let again: Vec<SocketAddr> = (0..200).map(|number| dial(&mut programs, number, 2)).collect();
    assert_ne!(before[..200], again);
    let others: Vec<SocketAddr> = (5000..5200).map(|n| dial(&mut programs, n, 1)).collect();
    for (number, backend) in (0..200).zip(again).chain((5000..5200).zip(others)) {
        assert_eq!(dial(&mut programs, number, 3), backend, "{number}");
    }
    assert_eq!(programs.drops(), []);
}
