//! Source ranges of load-balancer addresses with real sockets.

use std::net::{IpAddr, SocketAddr};

use kproxy_lab::manifest::{Service, Slice, node, yaml};
use kproxy_lab::{Family, Hold, Outcome, Place, Probe, Seen, Step, Transport, mapped};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, PORT, SILENCE, TARGET, TRANSPORTS, at};

/// Load-balancer addresses of the Service `lb`; the router leads them to n1.
const ADDRESSES: [&str; 2] = ["203.0.113.20", "2001:db8:5::20"];
const CLUSTER_IPS: [&str; 2] = ["10.96.0.12", "fd00:10:96::c"];
const EXTERNAL_IPS: [&str; 2] = ["203.0.113.21", "2001:db8:5::21"];
/// Its NodePort; that of `web` is another one.
const OTHER_NODE_PORT: u16 = NODE_PORT + 2;

const OUTSIDE: [&str; 2] = ["192.0.2.0/24", "2001:db8::/64"];
const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
const NODES: [&str; 2] = ["172.18.0.0/24", "fd00:18::/64"];
const NOBODY: [&str; 2] = ["198.51.100.0/24", "2001:db8:99::/48"];

fn ends(ips: [&str; 2]) -> [SocketAddr; 2] {
    ips.map(|ip| at(ip.parse::<IpAddr>().unwrap(), PORT))
}

/// Writes the Service `lb`, open to these ranges, on these pods.
fn balancer(cluster: &Cluster, pods: &[&str], ranges: &[&str]) {
    let service = Service::new("lb")
        .cluster_ips(CLUSTER_IPS[0], CLUSTER_IPS[1])
        .of_type("LoadBalancer")
        .port("tcp", "TCP", PORT, TARGET)
        .node_port(OTHER_NODE_PORT)
        .port("udp", "UDP", PORT, TARGET)
        .node_port(OTHER_NODE_PORT)
        .spec(json!({"loadBalancerSourceRanges": ranges, "externalIPs": EXTERNAL_IPS}));
    let mut service = Value::from(service);
    let ingress: Vec<_> = ADDRESSES.iter().map(|ip| json!({"ip": ip})).collect();
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    let mut objects = vec![service];
    objects.extend(Family::ALL.map(|family| {
        let slice = Slice::of("lb", family).port("tcp", "TCP", TARGET).port("udp", "UDP", TARGET);
        Value::from(
            pods.iter().fold(slice, |slice, pod| slice.pod(&cluster.lab.place(pod).unwrap())),
        )
    }));
    cluster.lab.write_manifest("lb.yaml", &yaml(objects).unwrap()).unwrap();
}

/// A cluster with the Service `lb`, whose addresses lead to n1.
fn cluster(pods: &[&str], ranges: &[&str]) -> Cluster {
    cluster_with(pods, ranges, &[])
}

/// As [`cluster`], with arguments for kproxy.
fn cluster_with(pods: &[&str], ranges: &[&str], arguments: &[&str]) -> Cluster {
    let cluster = Cluster::with_arguments(&["n1/a"], json!({}), arguments);
    let nodes = cluster.lab.nodes().into_iter().map(|name| node(&cluster.lab.node(&name)));
    cluster.lab.write_manifest("nodes.yaml", &yaml(nodes).unwrap()).unwrap();
    let gateway = cluster.lab.node("n1").addresses();
    for ip in ADDRESSES.into_iter().chain(EXTERNAL_IPS) {
        let family = Family::of(ip.parse().unwrap());
        let via = gateway.of(family).to_string();
        cluster.lab.router().run("ip", &["route", "add", ip, "via", &via]).unwrap();
    }
    balancer(&cluster, pods, ranges);
    in_force(&cluster, ranges);
    cluster
}

/// Waits until n1 has these ranges, those added for LBR-03 left out.
fn in_force(cluster: &Cluster, ranges: &[&str]) {
    cluster.wait("the ranges are there", || {
        let services = cluster.dump("n1", "services");
        let ports: Vec<_> = services
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["service"]["name"] == "lb")
            .collect();
        let has = |row: &Value| {
            let v6 = row["service"]["family"] == "IPv6";
            let wanted = ranges.iter().filter(|range| range.contains(':') == v6);
            let wanted: Vec<_> = wanted.filter(|range| !range.ends_with("/0")).collect();
            let held = row["source_ranges"].as_array().unwrap();
            let held: Vec<_> = held.iter().filter_map(Value::as_str).collect();
            let added =
                held.iter().filter(|range| ADDRESSES.iter().any(|ip| range.starts_with(ip)));
            wanted.iter().all(|range| held.contains(*range))
                && held.len() == wanted.len() + added.count()
        };
        ports.len() == 4 && ports.iter().all(|row| has(row))
    });
}

fn change(cluster: &Cluster, pods: &[&str], ranges: &[&str]) {
    balancer(cluster, pods, ranges);
    in_force(cluster, ranges);
}

/// Every way to dial the load-balancer addresses from inside.
fn inside() -> Vec<(Transport, SocketAddr)> {
    let [v4, v6] = ends(ADDRESSES);
    TRANSPORTS.into_iter().flat_map(|t| [v4, v6, mapped(v4)].map(|to| (t, to))).collect()
}

fn answers(from: &Place, transport: Transport, to: SocketAddr) {
    let outcome = from.probe(Probe::new(transport, to).count(4)).unwrap();
    assert!(outcome.all_answered(), "{} {transport:?} {to}: {outcome}", from.name());
}

/// LBR-02: dropped, not refused.
fn is_silent(from: &Place, probe: Probe) {
    let outcome = from.probe(probe.clone().timeout(SILENCE)).unwrap();
    // A host's UDP socket may be told that its datagram was dropped (ENOBUFS).
    let silent = outcome.answered() + outcome.refused() == 0;
    assert!(silent, "{} {probe:?}: {outcome}", from.name());
}

/// Drops of `lb` on n1 because of the source.
fn dropped(cluster: &Cluster) -> u64 {
    let counters = cluster.dump("n1", "counters");
    let of = |row: &Value| row["drops"]["source-not-allowed"].as_u64().unwrap_or(0);
    counters.as_array().unwrap().iter().filter(|row| row["service"]["name"] == "lb").map(of).sum()
}

#[test]
fn lbr_01_lbr_02_lbr_06_clients_outside() {
    let cluster = cluster(&["n1/a", "n2/a"], &OUTSIDE);
    let client = cluster.lab.client();
    for transport in TRANSPORTS {
        for to in ends(ADDRESSES) {
            answers(&client, transport, to);
        }
    }
    assert_eq!(dropped(&cluster), 0);
    change(&cluster, &["n1/a", "n2/a"], &NOBODY);
    cluster.lab.route_services_via("n1").unwrap();
    for transport in TRANSPORTS {
        for to in ends(ADDRESSES) {
            is_silent(&client, Probe::new(transport, to));
        }
        // LBR-01: everything else of the Service is open.
        let nodes = cluster.lab.node("n1").addresses().both().map(|ip| at(ip, OTHER_NODE_PORT));
        for to in ends(CLUSTER_IPS).into_iter().chain(ends(EXTERNAL_IPS)).chain(nodes) {
            answers(&client, transport, to);
        }
    }
    assert!(dropped(&cluster) >= 6);
    let wide =
        cluster.kproxy("n1", &["dump", "frontends", "--address", ADDRESSES[0], "-o", "wide"]);
    assert!(wide.contains("ranges"), "{wide}");
    let problems = cluster.kproxy("n1", &["status", "-o", "json"]);
    assert!(!problems.contains("ourceRanges are not"), "{problems}");
}

#[test]
fn lbr_02_pods_are_held_to_the_ranges() {
    let cluster = cluster(&["n1/a", "n2/a"], &OUTSIDE);
    let pod = cluster.lab.pod("n1", "b");
    for (transport, to) in inside() {
        is_silent(&pod, Probe::new(transport, to));
    }
    // Every call was dropped where it left the pod.
    assert!(dropped(&cluster) >= inside().len() as u64);
    for (transport, to) in TRANSPORTS.into_iter().flat_map(|t| ends(CLUSTER_IPS).map(|to| (t, to)))
    {
        answers(&pod, transport, to);
    }
    change(&cluster, &["n1/a", "n2/a"], &PODS);
    for (transport, to) in inside() {
        answers(&pod, transport, to);
    }
    // A range that holds some of the pods: a socket that is bound is judged by its address, the
    // others by that of their packets.
    let own = pod.addresses();
    let some = [format!("{}/32", own.v4), format!("{}/128", own.v6)];
    change(&cluster, &["n1/a", "n2/a"], &some.each_ref().map(String::as_str));
    let other = cluster.lab.pod("n1", "a");
    for (to, from) in ends(ADDRESSES).into_iter().zip(own.both()) {
        for transport in TRANSPORTS {
            let outcome = pod.probe(Probe::new(transport, to).from(at(from, 0))).unwrap();
            assert!(outcome.all_answered(), "{transport:?} {to}: {outcome}");
            answers(&pod, transport, to);
            let theirs = other.addresses().of(Family::of(from));
            is_silent(&other, Probe::new(transport, to).from(at(theirs, 0)));
            is_silent(&other, Probe::new(transport, to));
        }
    }
}

#[test]
fn lbr_02_lbr_03_processes_of_the_node_count_as_the_node() {
    let cluster = cluster(&["n1/a", "n2/a"], &PODS);
    let host = cluster.lab.node("n1");
    for (transport, to) in inside() {
        is_silent(&host, Probe::new(transport, to));
    }
    change(&cluster, &["n1/a", "n2/a"], &NODES);
    for (transport, to) in inside() {
        answers(&host, transport, to);
    }
    for transport in TRANSPORTS {
        is_silent(&cluster.lab.pod("n1", "b"), Probe::new(transport, ends(ADDRESSES)[0]));
        // The bridge's address is the node's, too, but no range holds it.
        let bridge = at("10.244.1.1".parse::<IpAddr>().unwrap(), 0);
        is_silent(&host, Probe::new(transport, ends(ADDRESSES)[0]).from(bridge));
    }
    let frontends = cluster.dump("n1", "frontends").to_string();
    assert!(frontends.contains("ranges and this node"), "{frontends}");
}

#[test]
fn lbr_04_blocked_sources_are_dropped_also_without_endpoints() {
    let cluster = cluster(&[], &OUTSIDE);
    for to in ends(ADDRESSES) {
        let client = cluster.lab.client();
        for transport in [Transport::Tcp, Transport::UdpConnected] {
            let outcome = client.probe(Probe::new(transport, to)).unwrap();
            assert!(outcome.all_refused(), "{transport:?} {to}: {outcome}");
        }
        for from in [cluster.lab.pod("n1", "b"), cluster.lab.node("n1")] {
            is_silent(&from, Probe::tcp(to));
        }
    }
    change(&cluster, &[], &NODES);
    for (transport, to) in inside() {
        let outcome = cluster.lab.node("n1").probe(Probe::new(transport, to)).unwrap();
        assert!(outcome.all_refused(), "{transport:?} {to}: {outcome}");
    }
    for to in ends(ADDRESSES) {
        is_silent(&cluster.lab.client(), Probe::tcp(to));
    }
}

/// A source of a message's own (IP_PKTINFO) is another client than the socket is without.
#[test]
fn lbr_02_each_source_of_a_udp_socket_is_judged() {
    let bridges = ["10.244.1.1", "fd00:10:244:1::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let cluster = cluster(&["n1/a"], &NODES);
    let host = cluster.lab.node("n1");
    let any = ["0.0.0.0", "::"].map(|ip| at(ip.parse::<IpAddr>().unwrap(), 0));
    let open = || any.map(|from| host.socket(Transport::UdpUnconnected, from).unwrap());
    let asked = |sockets: &[kproxy_lab::Stepped; 2], from_bridge: bool| -> Vec<bool> {
        (0..2)
            .map(|i| {
                let to = ends(ADDRESSES)[i];
                let step =
                    if from_bridge { Step::AskFrom(bridges[i], to) } else { Step::AskAt(to) };
                match sockets[i].step(step).unwrap() {
                    Seen::Answered { server, source } => {
                        assert_eq!((server.as_str(), source), ("n1/a", Some(to)));
                        true
                    }
                    _ => false,
                }
            })
            .collect()
    };
    // The node may, its bridge's address may not, whichever was asked before.
    let sockets = open();
    for from_bridge in [true, false, true, true, false, false] {
        assert_eq!(asked(&sockets, from_bridge), [!from_bridge; 2], "{from_bridge}");
    }
    // The other way round.
    let bridge_alone = bridges.map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }));
    change(&cluster, &["n1/a"], &bridge_alone.each_ref().map(String::as_str));
    let sockets = open();
    for from_bridge in [false, true, false, false, true, true] {
        assert_eq!(asked(&sockets, from_bridge), [from_bridge; 2], "{from_bridge}");
    }
}

/// Where no socket is looked at, each packet is.
#[test]
fn lbr_02_packets_that_no_socket_hook_has_seen_are_held_to_the_ranges() {
    let cluster = cluster_with(&["n1/a", "n2/a"], &OUTSIDE, &["--socket-lb", "none"]);
    let (pod, host, client) =
        (cluster.lab.pod("n1", "b"), cluster.lab.node("n1"), cluster.lab.client());
    let mut silent = 0;
    for (from, (transport, to)) in
        [&pod, &host].into_iter().flat_map(|from| inside().into_iter().map(move |way| (from, way)))
    {
        is_silent(from, Probe::new(transport, to));
        silent += 1;
    }
    for (transport, to) in TRANSPORTS.into_iter().flat_map(|t| ends(ADDRESSES).map(|to| (t, to))) {
        answers(&client, transport, to);
    }
    assert!(dropped(&cluster) >= silent, "{} of {silent}", dropped(&cluster));
    let inside_alone: Vec<_> = PODS.into_iter().chain(NODES).collect();
    change(&cluster, &["n1/a", "n2/a"], &inside_alone);
    for (from, (transport, to)) in
        [&pod, &host].into_iter().flat_map(|from| inside().into_iter().map(move |way| (from, way)))
    {
        answers(from, transport, to);
    }
    for (transport, to) in TRANSPORTS.into_iter().flat_map(|t| ends(ADDRESSES).map(|to| (t, to))) {
        is_silent(&client, Probe::new(transport, to));
    }
    // Without a ports' part of its own until the first fragment has come.
    for family in Family::ALL {
        let to = ends(ADDRESSES)[usize::from(family == Family::V6)];
        is_silent(&client, Probe::new(Transport::UdpReversed, to).padding(6000));
    }
}

/// What a UDP socket remembers of one frontend opens no other.
#[test]
fn lbr_02_a_udp_socket_that_knows_a_backend_is_judged_anew() {
    let cluster = cluster(&["n1/a"], &NOBODY);
    for from in [cluster.lab.pod("n1", "b"), cluster.lab.node("n1")] {
        for number in 0..2 {
            let (denied, open) = (ends(ADDRESSES)[number], ends(CLUSTER_IPS)[number]);
            let any = ["0.0.0.0", "::"].map(|ip| at(ip.parse::<IpAddr>().unwrap(), 0))[number];
            let socket = from.socket(Transport::UdpUnconnected, any).unwrap();
            let step = |step| socket.step(step).unwrap();
            let is_open = |seen: &Seen| matches!(seen, Seen::Answered { source, .. } if *source == Some(open));
            let is_shut = |seen: &Seen| matches!(seen, Seen::Failed(_));
            // The same backend, by another frontend of the same Service.
            for _ in 0..2 {
                let seen = step(Step::AskAt(open));
                assert!(is_open(&seen), "{} {open}: {seen:?}", from.name());
                let seen = step(Step::AskAt(denied));
                assert!(is_shut(&seen), "{} {denied}: {seen:?}", from.name());
            }
            // Connected to what is open, a datagram to what is not; and the other way round.
            assert_eq!(step(Step::Connect(open)), Seen::Done);
            let seen = step(Step::AskAt(denied));
            assert!(is_shut(&seen), "{} connected, {denied}: {seen:?}", from.name());
            assert_eq!(step(Step::Dissolve), Seen::Done);
            // That it is shut may be told here or by the next call.
            let connected = step(Step::Connect(denied));
            let seen = step(Step::Ask);
            assert!(is_shut(&seen), "{} {denied}: {connected:?}, {seen:?}", from.name());
            step(Step::Dissolve);
            // An IPv6 socket goes on hearing its last peer alone (__udp_disconnect() leaves sk_v6_daddr).
            if open.is_ipv4() {
                let seen = step(Step::AskAt(open));
                assert!(is_open(&seen), "{} {open}: {connected:?}, then {seen:?}", from.name());
            }
        }
    }
    assert!(dropped(&cluster) >= 16, "{}", dropped(&cluster));
}

#[test]
fn lbr_05_narrower_ranges_cut_no_connection() {
    let all: Vec<_> = OUTSIDE.into_iter().chain(PODS).chain(NODES).collect();
    let cluster = cluster(&["n1/a", "n2/a"], &all);
    let places = [cluster.lab.client(), cluster.lab.pod("n1", "b"), cluster.lab.node("n1")];
    let mut held = Vec::new();
    for place in &places {
        for (transport, to) in
            TRANSPORTS.into_iter().flat_map(|t| ends(ADDRESSES).map(|to| (t, to)))
        {
            held.push(place.hold(Hold::new(transport, to)).unwrap());
        }
    }
    change(&cluster, &["n1/a", "n2/a"], &NOBODY);
    for place in &places {
        is_silent(place, Probe::tcp(ends(ADDRESSES)[0]));
    }
    for held in held {
        let before = held.report().unwrap().answered;
        cluster.wait("the connection goes on", || held.report().unwrap().answered > before + 3);
        let report = held.stop().unwrap();
        assert!(report.is_flawless(), "{report:?}");
    }
}

#[test]
fn lbr_07_lbr_08_when_nobody_is_shut_out() {
    let cluster = cluster(&["n1/a", "n2/a"], &NOBODY);
    let places = [cluster.lab.client(), cluster.lab.pod("n1", "b"), cluster.lab.node("n1")];
    for ranges in [
        ["0.0.0.0/0", "::/0"].as_slice(),
        // LBR-08: no range of the other family.
        &[NOBODY[0]],
        &[NOBODY[1]],
    ] {
        change(&cluster, &["n1/a", "n2/a"], &[]);
        balancer(&cluster, &["n1/a", "n2/a"], ranges);
        in_force(&cluster, ranges);
        for (from, to) in places.iter().flat_map(|from| ends(ADDRESSES).map(|to| (from, to))) {
            let shut = ranges.iter().any(|r| !r.ends_with("/0") && r.contains(':') == to.is_ipv6());
            if shut {
                is_silent(from, Probe::tcp(to));
            } else {
                answers(from, Transport::Tcp, to);
            }
        }
    }
    // "Everyone" in two halves. They are joined, so there is no waiting for the text.
    balancer(&cluster, &["n1/a", "n2/a"], &["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]);
    for (from, to) in places.iter().flat_map(|from| ends(ADDRESSES).map(|to| (from, to))) {
        cluster.eventually(
            "two halves",
            from,
            &Probe::tcp(to).timeout(SILENCE),
            Outcome::all_answered,
        );
    }
}

#[test]
fn a_restart_keeps_the_ranges_and_writes_nothing() {
    let cluster = cluster(&["n1/a", "n2/a"], &OUTSIDE);
    let proxy = &cluster.proxies[0];
    proxy.kill().unwrap();
    for to in ends(ADDRESSES) {
        answers(&cluster.lab.client(), Transport::Tcp, to);
        is_silent(&cluster.lab.pod("n1", "b"), Probe::tcp(to));
    }
    proxy.start().unwrap();
    assert!(proxy.log().contains("writes=0"), "{}", proxy.log());
    for to in ends(ADDRESSES) {
        answers(&cluster.lab.client(), Transport::Tcp, to);
        is_silent(&cluster.lab.pod("n1", "b"), Probe::tcp(to));
    }
}
