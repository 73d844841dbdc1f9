//! A client port that is used again within the life of its UDP flow.

use std::net::SocketAddr;
use std::time::Duration;

use kproxy_lab::{Family, Network, Outcome, Place, Probe, poll_until};

use crate::case::Web;
use crate::stage::{Row, SILENCE, Stage, With, at};

/// Longer than a UDP flow must rest before another may take its place.
const REST: Duration = Duration::from_secs(20);
const PORT: u16 = 20_000;

fn stage() -> Stage {
    Stage::new(Row { network: Network::Bridge, with: With::Nothing }).unwrap()
}

fn ask(from: &Place, probe: Probe) -> Outcome {
    from.probe(probe.ports(PORT)).unwrap()
}

#[test]
fn a_direct_datagram_ends_the_flow_that_would_translate_its_answer() {
    let stage = stage();
    for (family, vip) in Family::ALL.into_iter().zip(Web::Far.vips()) {
        for from in ["n1", "n1/b"] {
            let from = stage.lab.place(from).unwrap();
            let node_port = stage.lab.node("n2").at(family, Web::Far.node_port());
            for probe in [Probe::udp as fn(SocketAddr) -> Probe, Probe::udp_unconnected] {
                assert!(ask(&from, probe(node_port)).all_answered());
                // The socket path makes this a datagram straight to the pod.
                let outcome = ask(&from, probe(vip));
                assert!(outcome.all_answered(), "{} {vip}: {outcome}", from.name());
                assert_eq!(outcome.sources(), [vip].into(), "{}", from.name());
            }
        }
    }
}

#[test]
fn another_frontend_of_the_same_backend_takes_over_a_flow_that_rests() {
    let stage = stage();
    let client = stage.lab.client();
    for ip in stage.lab.node("n2").addresses().both() {
        assert!(ask(&client, Probe::udp(at(ip, Web::Far.node_port()))).all_answered());
    }
    // Routed to the pod's node, so that the backend is a near one and the client keeps its port.
    stage.lab.route_services_via("n2").unwrap();
    for vip in Web::Far.vips() {
        let look = || client.probe(Probe::udp(vip).timeout(SILENCE));
        let outcome = poll_until(REST, Duration::from_millis(200), look, Outcome::all_answered);
        assert!(outcome.unwrap().all_answered(), "{vip} is never answered");
    }
}
