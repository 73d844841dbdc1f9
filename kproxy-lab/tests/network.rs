//! Labs without any proxy: everyone reaches whom they should, sockets say what they see.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use kproxy_lab::{
    Family, Hold, HttpOutcome, Lab, Load, POD_PORT, Probe, Transport, Work, mapped, poll_until,
};

const TRANSPORTS: [Transport; 3] =
    [Transport::Tcp, Transport::UdpConnected, Transport::UdpUnconnected];

#[test]
fn pods_hosts_and_the_client_reach_pods_on_every_node() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let clients = [lab.pod("n1", "a"), lab.node("n1"), lab.client()];
    for client in &clients {
        for server in ["n1/a", "n1/b", "n2/a"] {
            let server = lab.place(server).unwrap();
            for (family, transport) in
                Family::ALL.into_iter().flat_map(|f| TRANSPORTS.map(|t| (f, t)))
            {
                let to = server.at(family, POD_PORT);
                let outcome = client.probe(Probe::new(transport, to).count(3)).unwrap();
                let what = format!("{} {transport:?} {to}: {outcome}", client.name());
                assert_eq!(outcome.servers(), [(server.name(), 3)].into(), "{what}");
                // A node reaches its own pods from the pods' bridge.
                if !(client.name() == "n1" && server.name().starts_with("n1/")) {
                    assert_eq!(outcome.clients(), BTreeSet::from([client.ip(family)]), "{what}");
                }
                match transport {
                    Transport::Tcp | Transport::Mptcp | Transport::Sctp => {
                        assert_eq!(outcome.peers(), [to].into(), "{what}")
                    }
                    Transport::UdpConnected => {
                        assert_eq!(
                            (outcome.peers(), outcome.sources()),
                            ([to].into(), [to].into())
                        );
                    }
                    Transport::UdpUnconnected | Transport::UdpReversed | Transport::UdpHeadless => {
                        assert_eq!(outcome.sources(), [to].into());
                    }
                }
            }
        }
    }
}

#[test]
fn probes_tell_refused_from_silent_and_carry_large_payloads() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (client, server) = (lab.pod("n1", "a"), lab.pod("n2", "a"));
    for family in Family::ALL {
        for transport in TRANSPORTS {
            let closed = client.probe(Probe::new(transport, server.at(family, 9))).unwrap();
            assert!(closed.all_refused(), "{family:?} {transport:?}: {closed}");

            let padding = if transport == Transport::Tcp { 1 << 20 } else { 9_000 };
            let large = Probe::new(transport, server.at(family, POD_PORT)).padding(padding);
            let large = client.probe(large.same_socket().count(3)).unwrap();
            assert!(large.all_answered(), "{family:?} {transport:?}: {large}");
        }
        let fragments =
            |transport| Probe::new(transport, server.at(family, POD_PORT)).padding(4_000);
        let reversed = client.probe(fragments(Transport::UdpReversed).count(3)).unwrap();
        assert!(reversed.all_answered(), "{family:?}: {reversed}");
        let headless = fragments(Transport::UdpHeadless).timeout(Duration::from_millis(500));
        let headless = client.probe(headless).unwrap();
        assert_eq!(headless.timeouts(), 1, "{family:?}: {headless}");
    }
    // A route into nothing: no answer and no error.
    lab.node("n2").run("ip", &["route", "add", "blackhole", "10.96.0.99"]).unwrap();
    lab.route_services_via("n2").unwrap();
    let silent: SocketAddr = "10.96.0.99:80".parse().unwrap();
    for transport in TRANSPORTS {
        let probe = Probe::new(transport, silent).timeout(Duration::from_millis(300));
        let outcome = lab.client().probe(probe).unwrap();
        assert_eq!(outcome.timeouts(), 1, "{transport:?}: {outcome}");
    }
}

#[test]
fn v4_mapped_sockets_and_given_source_ports() {
    let lab = Lab::builder().build().unwrap();
    let (client, server) = (lab.pod("n1", "a"), lab.pod("n1", "b"));
    let to = server.at(Family::V4, POD_PORT);
    for transport in TRANSPORTS {
        let outcome = client.probe(Probe::new(transport, to).mapped()).unwrap();
        assert!(outcome.all_answered(), "{transport:?}: {outcome}");
        assert_eq!(outcome.clients(), BTreeSet::from([client.ip(Family::V4)]));
        let seen = if transport == Transport::UdpUnconnected {
            outcome.sources()
        } else {
            outcome.peers()
        };
        assert_eq!(seen, [mapped(to)].into());

        let from = client.at(Family::V4, 40_000);
        let outcome = client.probe(Probe::new(transport, to).from(from)).unwrap();
        assert_eq!(outcome.answers().map(|a| a.client).collect::<Vec<_>>(), [from], "{outcome}");
    }
}

#[test]
fn pods_come_and_go_and_their_connections_notice() {
    let lab = Lab::builder().nodes(2).pods(&["a"]).build().unwrap();
    let new = lab.add_pod("n2", "new").unwrap();
    let client = lab.pod("n1", "a");
    let held = client.hold(Hold::tcp(new.at(Family::V6, POD_PORT))).unwrap();
    let datagrams = Hold::udp(new.at(Family::V4, POD_PORT)).timeout(Duration::from_millis(100));
    let datagrams = client.hold(datagrams).unwrap();
    assert!(held.report().unwrap().is_flawless());
    new.stop_serving(POD_PORT).unwrap();
    while datagrams.report().unwrap().errors.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(datagrams.stop().unwrap().errors.into_keys().collect::<Vec<_>>(), ["ECONNREFUSED"]);
    let report = held.stop().unwrap();
    assert!(report.broken.is_some(), "{report:?}");
    lab.remove_pod("n2", "new").unwrap();
    assert!(lab.place("n2/new").is_err());
    lab.add_pod("n2", "new").unwrap();
}

#[test]
fn a_udp_socket_may_be_held_before_anybody_answers() {
    let lab = Lab::builder().build().unwrap();
    let (client, server) = (lab.pod("n1", "a"), lab.pod("n1", "b"));
    let hold = Hold::udp(server.at(Family::V4, 9001)).pause(Duration::from_millis(10));
    assert!(client.hold(hold.clone()).is_err());
    let held = client.hold(hold.even_unanswered()).unwrap();
    server.serve(9001).unwrap();
    let (patience, pause) = (Duration::from_secs(30), Duration::from_millis(10));
    let report = poll_until(patience, pause, || held.report(), |report| report.answered > 0);
    assert!(report.unwrap().answered > 0);
}

#[test]
fn http_requests_tell_refused_from_what_is_no_http() {
    let lab = Lab::builder().build().unwrap();
    let (client, server) = (lab.pod("n1", "a"), lab.pod("n1", "b"));
    let timeout = Duration::from_secs(10);
    let ask = |port| client.http(server.at(Family::V6, port), "GET", "/", timeout).unwrap();
    assert_eq!(ask(9), HttpOutcome::Refused);
    assert!(matches!(ask(POD_PORT), HttpOutcome::Failed(_)), "{:?}", ask(POD_PORT));
}

#[test]
fn every_kind_of_load_runs() {
    let lab = Lab::builder().nodes(2).pods(&["a"]).build().unwrap();
    let (client, server) = (lab.pod("n1", "a"), lab.pod("n2", "a"));
    server.serve_at(&server.addresses().both(), 9_000, Some(0)).unwrap();
    for work in [
        Work::Connect,
        Work::PingTcp,
        Work::PingUdp,
        Work::PingUdpUnconnected,
        Work::BulkDown,
        Work::BulkUp,
    ] {
        for family in Family::ALL {
            let load = Load::new(work, server.at(family, 9_000)).operations(20).cpu(0);
            let report = client.load(load).unwrap();
            assert!(report.operations > 0 && report.nanoseconds > 0, "{work:?}: {report:?}");
        }
    }
}

#[test]
fn programs_run_inside_the_place_and_see_the_cgroup_tree() {
    let lab = Lab::builder().build().unwrap();
    let pod = lab.pod("n1", "a");
    let addresses = pod.run("ip", &["-4", "addr", "show", "eth0"]).unwrap();
    assert!(addresses.contains(&pod.ip(Family::V4).to_string()), "{addresses}");
    let group = pod.run("cat", &["/proc/self/cgroup"]).unwrap();
    let cgroup = format!("0::/kproxy-lab-{}/n1/pod-a", lab.id());
    assert!(group.lines().any(|line| line == cgroup), "{group}");
    pod.run("test", &["-d", &lab.node_cgroup("n1").display().to_string()]).unwrap();
    assert!(pod.run("false", &[]).unwrap_err().to_string().contains("`false ` in n1/a"));
}

#[test]
fn places_can_be_entered_and_probed_by_hand() {
    let lab = Lab::builder().build().unwrap();
    let program = env!("CARGO_BIN_EXE_kproxy-lab");
    let (pod, to) = (lab.pod("n1", "b"), lab.pod("n1", "a").at(Family::V6, POD_PORT).to_string());
    let outcome = pod.run(program, &["probe", &to, "--count", "4"]).unwrap();
    let seen = pod.ip(Family::V6);
    assert_eq!(outcome, format!("4 requests: n1/a 4, seen as {seen}\n"));
    let enter = ["enter", lab.id(), "n1/b", "--", program, "load", &to, "--operations", "5"];
    let output = std::process::Command::new(program).args(enter).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("5 operations, "), "{text}");
    let report = pod.run(program, &["hold", &to, "--seconds", "1", "--socket", "udp"]).unwrap();
    assert!(report.contains("\"lost\":0"), "{report}");
    let mut server = lab.node("n1").command(program).unwrap();
    let mut server = server.args(["serve", "9000", "--name", "by-hand"]).spawn().unwrap();
    let answer = pod.probe_until(
        &Probe::udp(lab.node("n1").at(Family::V4, 9_000)),
        kproxy_lab::Outcome::all_answered,
    );
    assert_eq!(answer.unwrap().servers(), [("by-hand", 1)].into());
    server.kill().and_then(|()| server.wait()).unwrap();
    assert!(pod.run(program, &["probe", "10.244.1.1:9", "--count", "1"]).is_err());
}
