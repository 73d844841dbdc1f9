//! Flows that can be trusted: what forged packets, floods and old entries may not do. Nobody sweeps here:
//! it is as with a dead daemon.

use std::net::SocketAddr;

use kproxy_common::{
    config::{Config, config_flags},
    drop_reason::DropReason,
    flow::{FlowValue, flow_flags, flow_state, state::TIMEOUTS, track::segment_flags::RST},
    net::proto::TCP,
    service::frontend_flags as kind,
};

use crate::{
    harness::{NEXT, Programs, REDIRECT, SHOT, Segment, Tcp, tcp, tcp_with, udp},
    rows::{CLUSTER, programs},
    snat::{FAMILIES, SERVICE, dialled, on_a_node},
};

const CLIENT: &str = "203.0.113.9:40000";
const NODE: &str = "192.0.2.1:30080";
const VIP: &str = "10.96.0.10:80";
const POD: &str = "10.244.1.7:40000";
const BACKEND: &str = "10.244.1.5:8080";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn near() -> Programs {
    programs(&[&format!("L{BACKEND}")])
}

/// Both ends confirm a connection to a backend on this node.
fn establish(programs: &mut Programs, client: &str) {
    programs.ingress(&tcp(client, NODE, Tcp::Syn));
    programs.egress(&tcp(BACKEND, client, Tcp::SynAck));
    programs.ingress(&tcp(client, NODE, Tcp::Ack));
}

/// As [`establish`], with a backend elsewhere; the source that it sees.
fn establish_elsewhere(programs: &mut Programs, client: &str) -> SocketAddr {
    let source = open_elsewhere(programs, client);
    programs.ingress(&tcp(client, NODE, Tcp::Ack));
    source
}

/// The backend has answered, the client has not.
fn open_elsewhere(programs: &mut Programs, client: &str) -> SocketAddr {
    let there = dialled(programs, &tcp(client, NODE, Tcp::Syn));
    assert_eq!(there.action, REDIRECT, "{client}: {:?}", programs.drops());
    let source = there.source();
    let answer = tcp(FAMILIES[0].backend, &source.to_string(), Tcp::SynAck);
    assert_eq!(programs.ingress(&answer).destination(), at(client));
    source
}

fn forward(programs: &mut Programs) -> FlowValue {
    let is_forward = |value: &FlowValue| value.flags & flow_flags::REVERSE == 0;
    let flows = programs.flows();
    let mut forwards = flows.iter().filter(|(_, value)| is_forward(value));
    let (_, value) = forwards.next().expect("a flow");
    assert!(forwards.next().is_none(), "{flows:?}");
    *value
}

fn client(number: u32) -> String {
    format!("198.51.{}.{}:{}", number / 250, number % 250, 1024 + number)
}

#[test]
fn half_open_connections_keep_no_port_from_a_client() {
    on_a_node(|programs| {
        programs.service(SERVICE, &[FAMILIES[0].backend]);
        programs.configure(|config| Config { snat_count: 4, ..config });
        for number in 0..40 {
            open_elsewhere(programs, &client(number));
        }
        // Four honest ones, between and after others.
        let honest: Vec<(String, SocketAddr)> = (100..104)
            .map(|number| {
                open_elsewhere(programs, &client(number + 100));
                (client(number), establish_elsewhere(programs, &client(number)))
            })
            .collect();
        let refused = programs.ingress(&tcp(&client(300), NODE, Tcp::Syn));
        assert_eq!(refused.action, SHOT, "all ports are those of confirmed connections");
        assert_eq!(programs.drops(), [(SERVICE, DropReason::NoSourcePort, 1)]);
        for (client, source) in &honest {
            assert_eq!(programs.ingress(&tcp(client, NODE, Tcp::Ack)).source(), *source);
        }
        assert_eq!(programs.assured(), 4);
    });
}

#[test]
fn a_full_table_refuses_nobody_and_keeps_who_is_confirmed() {
    let mut programs = Programs::with_flows(128);
    programs.frontend("0.0.0.0:30080", TCP, kind::NODE_PORT, CLUSTER, CLUSTER);
    programs.address("192.0.2.1", kind::NODE_ADDRESS);
    programs.service(CLUSTER, &["L10.244.1.5:8080"]);
    let confirmed: Vec<String> = (0..20).map(client).collect();
    confirmed.iter().for_each(|client| establish(&mut programs, client));
    for number in 100..3000 {
        let client = client(number);
        let syn = programs.ingress(&tcp(&client, NODE, Tcp::Syn));
        assert_eq!((syn.action, syn.destination()), (NEXT, at(BACKEND)), "{number}");
        // Some are never answered, some never confirmed, some are over soon.
        if number % 3 > 0 {
            programs.egress(&tcp(BACKEND, &client, Tcp::SynAck));
        }
        if number % 3 > 1 {
            programs.ingress(&tcp(&client, NODE, Tcp::FinAck));
            programs.egress(&tcp(BACKEND, &client, Tcp::FinAck));
        }
    }
    for client in &confirmed {
        let ran = programs.ingress(&tcp(client, NODE, Tcp::Ack));
        assert_eq!(ran.destination(), at(BACKEND), "{client}");
    }
    assert_eq!((programs.drops(), programs.assured()), (vec![], 20));
}

#[test]
fn every_state_ends_by_itself() {
    let fin = [tcp(CLIENT, NODE, Tcp::FinAck), tcp(BACKEND, CLIENT, Tcp::FinAck)];
    let last = Segment { seq: Tcp::FinAck.segment().end(), data: 0, ..Tcp::Ack.segment() };
    let last = tcp_with(at(CLIENT), at(NODE), &last);
    let rst = tcp(CLIENT, NODE, Tcp::Rst);
    for state in 0..=flow_state::RESET {
        if state == flow_state::CROSSED {
            continue;
        }
        let mut programs = near();
        programs.ingress(&tcp(CLIENT, NODE, Tcp::Syn));
        if state >= flow_state::RECEIVED {
            programs.egress(&tcp(BACKEND, CLIENT, Tcp::SynAck));
        }
        if state >= flow_state::ESTABLISHED {
            programs.ingress(&tcp(CLIENT, NODE, Tcp::Ack));
        }
        if state == flow_state::RESET {
            programs.ingress(&rst);
        } else if state >= flow_state::FIN_WAIT {
            programs.ingress(&fin[0]);
            match state {
                flow_state::CLOSE_WAIT => drop(programs.egress(&tcp(BACKEND, CLIENT, Tcp::Ack))),
                flow_state::LAST_ACK | flow_state::TIME_WAIT => drop(programs.egress(&fin[1])),
                _ => {}
            }
            if state == flow_state::TIME_WAIT {
                programs.ingress(&last);
            }
        }
        assert_eq!(forward(&mut programs).state, state);
        // A second of the clock may pass meanwhile.
        programs.age_flows(TIMEOUTS[usize::from(state)] - 2);
        programs.egress(&tcp(BACKEND, "203.0.113.8:1", Tcp::Ack));
        let stray = Segment { seq: 1 << 31, ..Tcp::Ack.segment() };
        let stray = tcp_with(at(CLIENT), at(NODE), &stray);
        assert_eq!(programs.ingress(&stray).destination(), at(BACKEND), "{state}: not yet");
        programs.age_flows(2);
        assert_eq!(programs.ingress(&stray).packet, stray, "{state}");
        assert_eq!((programs.flows(), programs.assured()), (vec![], 0), "{state}");
    }
}

#[test]
fn an_old_connection_keeps_no_port() {
    on_a_node(|programs| {
        programs.service(SERVICE, &[FAMILIES[0].backend]);
        programs.configure(|config| Config { snat_count: 1, ..config });
        let source = establish_elsewhere(programs, &client(1));
        assert_eq!(programs.ingress(&tcp(&client(2), NODE, Tcp::Syn)).action, SHOT);
        programs.age_flows(TIMEOUTS[usize::from(flow_state::ESTABLISHED)]);
        assert_eq!(open_elsewhere(programs, &client(2)), source);
        assert_eq!((programs.flows().len(), programs.assured()), (2, 0));
    });
}

#[test]
fn one_exchange_over_udp_is_soon_forgotten() {
    let mut programs = near();
    programs.ingress(&udp(CLIENT, NODE));
    programs.egress(&udp(BACKEND, CLIENT));
    assert_eq!((forward(&mut programs).state, programs.assured()), (flow_state::REPLIED, 0));
    programs.age_flows(28);
    assert_ne!(programs.egress(&udp(BACKEND, CLIENT)).packet, udp(BACKEND, CLIENT));
    assert_eq!((forward(&mut programs).state, programs.assured()), (flow_state::STREAM, 1));
    programs.age_flows(118);
    programs.ingress(&udp(CLIENT, NODE));
    assert_eq!(programs.counters(CLUSTER).0, 1);
    programs.age_flows(120);
    assert_eq!(programs.egress(&udp(BACKEND, CLIENT)).packet, udp(BACKEND, CLIENT));
    programs.ingress(&udp(CLIENT, NODE));
    assert_eq!((programs.counters(CLUSTER).0, programs.assured()), (2, 0));
    programs.age_flows(30);
    assert_eq!(programs.egress(&udp(BACKEND, CLIENT)).packet, udp(BACKEND, CLIENT));
}

/// A pod whose socket was given the backend has a connection that is no flow. Somebody sends a SYN from
/// its address and port to a frontend with the same backend.
#[test]
fn a_forged_syn_takes_no_answers_of_another_connection() {
    for (request, answer, frontend) in
        [("kp_ingress", "kp_egress", NODE), ("kp_pod_ingress", "kp_pod_egress", VIP)]
    {
        let mut programs = near();
        let syn = tcp(POD, frontend, Tcp::Syn);
        assert_eq!(programs.run(request, &syn).ends(), (at(POD), at(BACKEND)));
        let own = Segment { flags: 0x10, seq: 77_000_000, ack: 88_000_000, data: 100 };
        let challenge = Segment { data: 0, ..own };
        let reset = Segment { flags: RST, ack: 0, ..own };
        for said in [own, challenge, reset] {
            let packet = tcp_with(at(BACKEND), at(POD), &said);
            assert_eq!(programs.run(answer, &packet).packet, packet, "{said:?}");
        }
        // It has answered something else, so the next SYN comes from another port.
        let again = programs.run(request, &syn);
        assert_eq!(again.destination(), at(BACKEND));
        assert_ne!(again.source(), at(POD));
        let packet = tcp_with(at(BACKEND), at(POD), &own);
        assert_eq!(programs.run(answer, &packet).packet, packet);
        // Where the sender is who it says to be, it is answered.
        let answered = tcp(BACKEND, &again.source().to_string(), Tcp::SynAck);
        assert_eq!(programs.run(answer, &answered).ends(), (at(frontend), at(POD)));
        let packet = tcp_with(at(BACKEND), at(POD), &own);
        assert_eq!(programs.run(answer, &packet).packet, packet);
    }
}

#[test]
fn a_reset_counts_with_the_number_that_is_expected_alone() {
    let mut programs = near();
    establish(&mut programs, CLIENT);
    let expected = Tcp::Rst.segment();
    for ahead in [1 << 31, 5000, 100, u32::MAX] {
        let seq = expected.end().wrapping_add(ahead);
        let rst = Segment { seq, data: 0, ..expected };
        let there = programs.ingress(&tcp_with(at(CLIENT), at(NODE), &rst));
        assert_eq!(there.destination(), at(BACKEND), "the receiver judges");
        programs.egress(&tcp_with(at(BACKEND), at(CLIENT), &rst));
        assert_eq!(forward(&mut programs).state, flow_state::ESTABLISHED, "{ahead}");
        assert_eq!(programs.assured(), 1);
    }
    // The client says more than that: it did not send it.
    programs.ingress(&tcp(CLIENT, NODE, Tcp::Rst));
    assert_eq!((forward(&mut programs).state, programs.assured()), (flow_state::RESET, 0));
    let more = Segment { seq: Tcp::Ack.segment().end(), ..Tcp::Ack.segment() };
    programs.ingress(&tcp_with(at(CLIENT), at(NODE), &more));
    assert_eq!((forward(&mut programs).state, programs.assured()), (flow_state::ESTABLISHED, 1));
    programs.age_flows(1000);
    let ran = programs.ingress(&tcp_with(at(CLIENT), at(NODE), &more));
    assert_eq!(ran.destination(), at(BACKEND));
}

#[test]
fn a_client_may_dial_the_backend_itself_from_the_same_port() {
    let mut programs = near();
    establish(&mut programs, CLIENT);
    let there = programs.ingress(&tcp(CLIENT, BACKEND, Tcp::Syn));
    assert_eq!((there.action, there.destination()), (NEXT, at(BACKEND)));
    assert_eq!(there.source().ip(), at(CLIENT).ip());
    assert_ne!(there.source(), at(CLIENT));
    let answer = tcp(BACKEND, &there.source().to_string(), Tcp::SynAck);
    assert_eq!(programs.egress(&answer).ends(), (at(BACKEND), at(CLIENT)));
    let confirmed = programs.ingress(&tcp(CLIENT, BACKEND, Tcp::Ack));
    assert_eq!(confirmed.ends(), (there.source(), at(BACKEND)));
    // The other one goes on.
    assert_eq!(programs.ingress(&tcp(CLIENT, NODE, Tcp::Ack)).ends(), (at(CLIENT), at(BACKEND)));
    let answer = tcp(BACKEND, CLIENT, Tcp::Ack);
    assert_eq!(programs.egress(&answer).ends(), (at(NODE), at(CLIENT)));
    assert_eq!((programs.assured(), programs.drops()), (2, vec![]));
}

#[test]
fn an_answer_that_this_node_has_asked_for_is_no_request() {
    // Whether hooks serve the node's sockets, or its packets are translated.
    for flags in [0, config_flags::NODE_PACKETS] {
        let mut programs = near();
        programs.configure(|config| Config { flags, ..config });
        let server = "198.51.100.53:53";
        let query = udp(NODE, server);
        let answer = udp(server, NODE);
        for _ in 0..3 {
            assert_eq!(programs.egress(&query).packet, query);
            assert_eq!(programs.ingress(&answer).packet, answer, "{flags}");
            programs.age_flows(20);
        }
        // Whom nobody has asked asks itself; so does the server once its answer is awaited no more.
        assert_eq!(programs.ingress(&udp(CLIENT, NODE)).destination(), at(BACKEND));
        programs.age_flows(200);
        assert_eq!(programs.ingress(&answer).destination(), at(BACKEND));
    }
}

#[test]
fn who_is_asked_first_is_a_client() {
    let mut programs = near();
    assert_eq!(programs.ingress(&udp(CLIENT, NODE)).destination(), at(BACKEND));
    // What the node sends there from the frontend's port meanwhile changes nothing.
    let own = udp(NODE, CLIENT);
    assert_eq!(programs.egress(&own).packet, own);
    assert_eq!(programs.ingress(&udp(CLIENT, NODE)).destination(), at(BACKEND));
    assert_eq!(programs.egress(&udp(BACKEND, CLIENT)).ends(), (at(NODE), at(CLIENT)));
}

#[test]
fn assured_flows_are_counted_and_limited() {
    let mut programs = near();
    for number in 0..5 {
        establish(&mut programs, &client(number));
        establish(&mut programs, &client(number));
    }
    programs.ingress(&tcp(&client(9), NODE, Tcp::Syn));
    assert_eq!(programs.assured(), 5);
    programs.ingress(&tcp(&client(0), NODE, Tcp::FinAck));
    assert_eq!(programs.assured(), 5, "half closed");
    programs.egress(&tcp(BACKEND, &client(0), Tcp::FinAck));
    programs.ingress(&tcp(&client(1), NODE, Tcp::Rst));
    assert_eq!(programs.assured(), 3);
    programs.configure(|config| Config { max_assured: 3, ..config });
    establish(&mut programs, &client(6));
    assert_eq!(programs.assured(), 3);
    let served = programs.ingress(&tcp(&client(6), NODE, Tcp::Ack));
    assert_eq!(served.destination(), at(BACKEND), "served, but may give way");
    programs.ingress(&tcp(&client(2), NODE, Tcp::Rst));
    assert_eq!(programs.assured(), 2);
    // There is room now: its next packet, a second later, is assured.
    programs.age_flows(2);
    programs.ingress(&tcp(&client(6), NODE, Tcp::Ack));
    assert_eq!(programs.assured(), 3);
    programs.age_flows(TIMEOUTS[usize::from(flow_state::ESTABLISHED)]);
    for number in 0..10 {
        programs.ingress(&tcp(&client(number), NODE, Tcp::Ack));
    }
    assert_eq!((programs.assured(), programs.flows().len()), (0, 0));
}
