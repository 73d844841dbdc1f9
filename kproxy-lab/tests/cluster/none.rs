//! `--socket-lb none`: no socket is given a backend, packets of the node's own processes are
//! translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kproxy_lab::manifest::{Service, slices};
use kproxy_lab::{
    Family, Feature, Held, Hold, Lab, Network, Outcome, Place, Probe, ProxySpec, Source, Transport,
    mapped,
};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, PORT, SILENCE, TARGET, TRANSPORTS, at, vips};

const NONE: [&str; 2] = ["--socket-lb", "none"];
const BACKENDS: [&str; 2] = ["n1/a", "n2/a"];

fn cluster(network: Network, feature: Option<Feature>) -> Cluster {
    let lab = Lab::builder().nodes(2).network(network);
    let lab = feature.into_iter().fold(lab, |lab, feature| lab.feature(feature));
    Cluster::in_lab(lab.build().unwrap(), &BACKENDS, json!({}), &NONE)
}

/// All backends answer at this address, and the socket sees what it dialled.
fn all_answer(cluster: &Cluster, from: &Place, transport: Transport, to: SocketAddr) -> Outcome {
    let outcome = from.probe(Probe::new(transport, to).count(8)).unwrap();
    let what = format!("{} {transport:?} {to}: {outcome}", from.name());
    assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
    assert_eq!(outcome.server_set(), BACKENDS.into(), "{what}");
    if transport == Transport::UdpUnconnected {
        assert_eq!(outcome.sources(), [to].into(), "{what}");
    } else {
        assert_eq!(outcome.peers(), [to].into(), "{what}");
    }
    outcome
}

/// Where the node's processes may dial the NodePort.
fn own_addresses(node: &Place) -> Vec<IpAddr> {
    let mut own = node.addresses().both().to_vec();
    own.extend([
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv4Addr::new(127, 9, 9, 9).into(),
        Ipv6Addr::LOCALHOST.into(),
    ]);
    own
}

fn everything_answers(cluster: &Cluster, network: Network) {
    let (node, other) = (cluster.lab.node("n1"), cluster.lab.node("n2"));
    let [v4, v6] = vips();
    for transport in TRANSPORTS {
        for place in [&node, &cluster.lab.pod("n1", "b")] {
            for to in [v4, v6, mapped(v4)] {
                all_answer(cluster, place, transport, to);
            }
        }
        let others = other.addresses().both();
        for ip in own_addresses(&node).into_iter().chain(others) {
            all_answer(cluster, &node, transport, at(ip, NODE_PORT));
        }
        // More than a packet holds, in both directions.
        let node_port = at(node.ip(Family::V4), NODE_PORT);
        for to in [v4, v6, node_port] {
            let long = Probe::new(transport, to).count(4).padding(6000);
            // A datagram that fits the way to the frontend and not the one to the backend: its sender is
            // told, and cuts them up from then on.
            let is_longer = to == node_port || network == Network::Vxlan;
            let is_told = is_longer && transport != Transport::Tcp;
            let outcome = node.probe(if is_told { long.count(8) } else { long }).unwrap();
            let least = if is_told { 4 } else { outcome.attempts.len() };
            assert!(outcome.answered() >= least, "{transport:?} {to}: {outcome}");
        }
    }
}

#[test]
fn with_socket_lb_none_the_nodes_processes_are_served_by_packets() {
    let cluster = cluster(Network::Bridge, None);
    everything_answers(&cluster, Network::Bridge);
    let status = cluster.kproxy("n1", &["status"]);
    assert!(status.contains("in order") && !status.contains("not in order"), "{status}");
    assert!(status.contains("no program: packets of sockets are translated"), "{status}");
    let links = std::fs::read_dir(cluster.lab.bpffs("n1").join("kproxy/v3/links")).unwrap();
    let links: Vec<_> = links.flatten().map(|link| link.file_name()).collect();
    assert!(!links.iter().any(|link| link == "kp_connect4"), "{links:?}");
    let flows = cluster.kproxy("n1", &["dump", "flows"]);
    assert!(flows.contains("default/web"), "{flows}");
}

#[test]
fn rp_filter_lets_the_answers_to_the_nodes_processes_pass_on_every_network() {
    for network in [Network::Bridge, Network::Vxlan, Network::Routed] {
        let cluster = cluster(network, Some(Feature::RpFilter));
        println!("{network:?}");
        everything_answers(&cluster, network);
    }
}

#[test]
fn ver_01_ver_04_ver_16_the_nodes_processes_are_refused_at_once_or_hear_nothing() {
    let cluster = cluster(Network::Bridge, None);
    let node = cluster.lab.node("n1");
    cluster.web(&[], json!({}));
    let unknown = vips().map(|vip| SocketAddr::new(vip.ip(), PORT + 1));
    let own = own_addresses(&node).into_iter().map(|ip| at(ip, NODE_PORT));
    for to in vips().into_iter().chain(unknown).chain(own) {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, to).timeout(SILENCE);
            // A socket that is not connected hears of no error, which is the kernel's own way.
            if transport == Transport::UdpUnconnected {
                let outcome = node.probe(probe).unwrap();
                assert_eq!(outcome.answered(), 0, "{to}: {outcome}");
            } else {
                cluster.eventually(&format!("{to}"), &node, &probe, Outcome::all_refused);
            }
        }
    }
    let drops = cluster.kproxy("n1", &["dump", "counters"]);
    assert!(drops.contains("no-backend") && drops.contains("unknown-port"), "{drops}");
    cluster.web(&["n2/a"], json!({ "internalTrafficPolicy": "Local" }));
    for to in vips() {
        let probe = Probe::tcp(to).timeout(SILENCE);
        cluster.eventually("dropped", &node, &probe, |o| (o.answered(), o.refused()) == (0, 0));
    }
    // The node's own ports are nobody's Service.
    node.serve(PORT).unwrap();
    for ip in node.addresses().both() {
        assert!(node.probe(Probe::tcp(at(ip, PORT))).unwrap().all_answered(), "{ip}");
    }
}

/// A Service whose endpoints are servers of the nodes themselves, as that of the API server.
fn host(cluster: &Cluster, nodes: &[&str]) -> [SocketAddr; 2] {
    let service = Service::new("host")
        .cluster_ips("10.96.0.12", "fd00:10:96::c")
        .of_type("NodePort")
        .port("tcp", "TCP", PORT, TARGET)
        .node_port(NODE_PORT + 1)
        .port("udp", "UDP", PORT, TARGET)
        .node_port(NODE_PORT + 1);
    let places: Vec<_> = nodes.iter().map(|node| cluster.lab.node(node)).collect();
    let places: Vec<&Place> = places.iter().map(|place| &**place).collect();
    let mut objects = vec![Value::from(service)];
    for (name, protocol) in [("tcp", "TCP"), ("udp", "UDP")] {
        objects.extend(slices("host", name, protocol, TARGET, &places).map(|slice| {
            let mut slice = Value::from(slice);
            let own = format!("{}-{name}", slice["metadata"]["name"].as_str().unwrap());
            slice["metadata"]["name"] = own.into();
            slice
        }));
    }
    cluster.write("host.yaml", objects);
    for node in nodes {
        cluster.lab.node(node).serve(TARGET).unwrap();
    }
    ["10.96.0.12", "fd00:10:96::c"].map(|ip| at(ip.parse::<IpAddr>().unwrap(), PORT))
}

#[test]
fn a_backend_with_the_nodes_own_address_answers_the_nodes_processes() {
    for feature in [None, Some(Feature::RpFilter)] {
        let cluster = cluster(Network::Bridge, feature);
        let vips = host(&cluster, &["n1", "n2"]);
        let node = cluster.lab.node("n1");
        for from in [&node, &cluster.lab.pod("n1", "b")] {
            let own = own_addresses(&node).into_iter().map(|ip| at(ip, NODE_PORT + 1));
            let own: Vec<_> = if from.name() == "n1" { own.collect() } else { Vec::new() };
            for to in vips.into_iter().chain(own) {
                for transport in TRANSPORTS {
                    let probe = Probe::new(transport, to).count(8).timeout(SILENCE);
                    cluster.eventually(&format!("{transport:?} {to}"), from, &probe, |outcome| {
                        outcome.all_answered() && outcome.server_set() == ["n1", "n2"].into()
                    });
                }
            }
        }
        // The server here sees an address of the node, not the frontend.
        let seen = node.probe(Probe::tcp(vips[0]).count(8)).unwrap();
        assert!(seen.clients().iter().all(|ip| *ip != vips[0].ip()), "{seen}");
    }
}

/// Long-lived connections of the node and of a pod.
fn connections(cluster: &Cluster) -> Vec<Held> {
    let node = || cluster.lab.node("n1");
    let node_port = at(node().ip(Family::V4), NODE_PORT);
    let pod = cluster.lab.pod("n1", "b");
    let places = [(node(), vips()[0]), (node(), node_port), (pod, vips()[1])];
    let mut held = Vec::new();
    for (place, to) in places {
        // Two each, so that a backend on the node and one elsewhere are both in use.
        for transport in [Transport::Tcp, Transport::Tcp, Transport::UdpConnected] {
            held.push(place.hold(Hold::new(transport, to)).unwrap());
        }
    }
    held
}

#[test]
fn from_all_to_none_and_back_no_connection_is_lost() {
    let mut cluster = Cluster::with(&BACKENDS, json!({}));
    let node = cluster.lab.node("n1");
    let links = cluster.lab.bpffs("n1").join("kproxy/v3/links");
    let mut held = connections(&cluster);
    for mode in ["none", "all", "none"] {
        assert!(cluster.proxies[0].stop().unwrap().success());
        let spec = ProxySpec::kproxy(Source::Manifests).args(["--socket-lb", mode]);
        cluster.proxies[0] = cluster.lab.start_proxy("n1", spec).unwrap();
        assert_eq!(links.join("kp_connect4").exists(), mode == "all", "{mode}");
        // Device 1 is lo. Connections that were opened by packets go on needing it.
        assert!(links.join("kp_node_egress@1").exists(), "{mode}");
        for to in [vips()[0], at(node.ip(Family::V4), NODE_PORT)] {
            all_answer(&cluster, &node, Transport::Tcp, to);
        }
        let status = cluster.kproxy("n1", &["status"]);
        assert!(!status.contains("not in order"), "{mode}: {status}");
        held.extend(connections(&cluster));
    }
    for held in held {
        let report = held.stop().unwrap();
        assert!(report.is_flawless(), "{report:?}\n{}", cluster.logs());
    }
}
