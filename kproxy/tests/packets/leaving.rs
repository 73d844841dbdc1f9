//! Programs that another version replaces: what belongs to their flows is theirs, all else goes on to the other's.

use kproxy_common::{
    config::{Config, config_flags},
    flow::{FlowValue, flow_state},
};

use crate::{
    harness::{NEXT, Programs, Tcp, tcp, udp},
    rows::programs,
};

const CLIENT: &str = "203.0.113.9:40000";
const OTHER: &str = "203.0.113.9:40001";
const NODE: &str = "192.0.2.1:30080";
const VIP: &str = "10.96.0.10:80";
const UNKNOWN: &str = "10.96.0.10:81";
const BACKEND: &str = "10.244.1.5:8080";

fn leave(programs: &mut Programs) {
    programs.configure(|config| Config { flags: config.flags | config_flags::LEAVING, ..config });
}

fn arrive(programs: &mut Programs) {
    programs.configure(|config| Config { flags: config.flags | config_flags::ARRIVING, ..config });
}

#[test]
fn who_leaves_goes_on_with_its_flows_and_takes_no_other() {
    let mut programs = programs(&[&format!("L{BACKEND}")]);
    programs.ingress(&tcp(CLIENT, NODE, Tcp::Syn));
    programs.egress(&tcp(BACKEND, CLIENT, Tcp::SynAck));
    let refused = programs.ingress(&tcp(OTHER, UNKNOWN, Tcp::Syn));
    assert_ne!(refused.action, NEXT, "before");
    let (flows, drops) = (programs.flows().len(), programs.drops());
    leave(&mut programs);

    let there = programs.ingress(&tcp(CLIENT, NODE, Tcp::Ack));
    assert_eq!((there.action, there.destination()), (NEXT, BACKEND.parse().unwrap()));
    let back = programs.egress(&tcp(BACKEND, CLIENT, Tcp::Ack));
    assert_eq!((back.action, back.source()), (NEXT, NODE.parse().unwrap()));
    for (to, packet) in [
        (NODE, tcp(OTHER, NODE, Tcp::Syn)),
        (VIP, tcp(OTHER, VIP, Tcp::Syn)),
        (UNKNOWN, tcp(OTHER, UNKNOWN, Tcp::Syn)),
        (UNKNOWN, udp(OTHER, UNKNOWN)),
    ] {
        for untouched in [programs.ingress(&packet), programs.egress(&packet)] {
            assert_eq!((untouched.action, untouched.destination()), (NEXT, to.parse().unwrap()));
        }
    }
    assert_eq!((programs.flows().len(), programs.drops()), (flows, drops));

    // The port is used again: the new connection is the other's, and the old one stands in nobody's way.
    for (key, value) in programs.flows() {
        let over = FlowValue { state: flow_state::TIME_WAIT, ..value };
        programs.hash("KP_FLOWS").insert(key, over, 0).unwrap();
    }
    let again = programs.ingress(&tcp(CLIENT, NODE, Tcp::Syn));
    assert_eq!((again.action, again.destination()), (NEXT, NODE.parse().unwrap()));
    assert!(programs.flows().is_empty());
}

#[test]
fn who_arrives_leaves_alone_what_is_translated_and_only_then() {
    let mut programs = programs(&[&format!("L{BACKEND}")]);
    let (there, back) = (udp(CLIENT, NODE), udp(BACKEND, CLIENT));
    let said = programs.ingress(&there).said;
    assert_ne!(said, 0);
    // A packet that comes by twice is no packet of another version's.
    programs.after(said);
    assert_eq!(programs.ingress(&there).destination(), BACKEND.parse().unwrap());
    arrive(&mut programs);
    assert_eq!(programs.ingress(&there).destination(), NODE.parse().unwrap());
    assert_eq!(programs.egress(&back).source(), NODE.parse().unwrap(), "it was said elsewhere");
    programs.after(0);
    assert_eq!(programs.ingress(&there).destination(), BACKEND.parse().unwrap());
}

#[test]
fn who_arrives_takes_no_answer_of_the_others_for_a_datagram_of_the_nodes() {
    for arrives in [true, false] {
        let mut programs = programs(&[&format!("L{BACKEND}")]);
        if arrives {
            arrive(&mut programs);
        }
        // Translated where it came in, by whom this one knows no flow of, and sent on.
        programs.egress(&udp(NODE, CLIENT));
        assert_eq!(programs.flows().is_empty(), arrives, "{:?}", programs.flows());
        let led = programs.ingress(&udp(CLIENT, NODE)).destination();
        assert_eq!(led == BACKEND.parse().unwrap(), arrives, "{led}");
    }
}
