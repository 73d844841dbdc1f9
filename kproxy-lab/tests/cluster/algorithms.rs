//! Load-balancing algorithms with real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kproxy_lab::{Held, Hold, Place, Probe, Seen, Step, Transport};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, TARGET, at, has_mptcp, vips};

const PODS: [&str; 2] = ["n1/a", "n2/a"];

fn picked_by(algorithm: &str) -> Value {
    json!({"annotations": {"kproxy.dev/lb-algorithm": algorithm}})
}

fn least_connections() -> Cluster {
    let cluster = Cluster::new(&PODS);
    cluster.annotated(&PODS, picked_by("least-connections"));
    cluster.wait("least connections everywhere", || {
        ["n1", "n2"].iter().all(|node| algorithms(&cluster, node) == ["least-connections"])
    });
    cluster
}

/// Algorithms of the service ports, each once.
fn algorithms(cluster: &Cluster, node: &str) -> Vec<String> {
    let rows = cluster.dump(node, "services");
    let mut names: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["algorithm"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Connections that n1 has open to the pods by TCP and UDP of a family, as it counts them.
fn counted(cluster: &Cluster, v4: bool) -> Vec<u64> {
    let rows = cluster.dump("n1", "backends");
    let of_family = |row: &&Value| row["addr"].as_str().unwrap().contains('.') == v4;
    let tcp = |row: &&Value| row["service"]["protocol"] == "TCP";
    let rows = rows.as_array().unwrap().iter().filter(of_family).filter(tcp);
    rows.map(|row| row["connections"].as_u64().unwrap()).collect()
}

fn open(from: &Place, transport: Transport, to: SocketAddr, count: usize) -> Vec<(String, Held)> {
    let one = || {
        let held = from.hold(Hold::new(transport, to)).unwrap();
        let server = held.report().unwrap().servers.into_keys().next().unwrap();
        (server, held)
    };
    (0..count).map(|_| one()).collect()
}

fn close(held: impl IntoIterator<Item = (String, Held)>) {
    for (_, held) in held {
        let report = held.stop().unwrap();
        assert!(report.is_flawless() && report.servers.len() == 1, "{report:?}");
    }
}

/// One backend is slow: what it has stays open. The other one gets everything until they are even.
fn a_slow_backend_is_spared(cluster: &Cluster, from: &Place, transport: Transport, to: SocketAddr) {
    let what = format!("{} {transport:?} {to}", from.name());
    let v4 = to.is_ipv4();
    cluster.wait(&format!("{what}: nothing is open"), || counted(cluster, v4) == [0, 0]);
    let held = open(from, transport, to, 12);
    let (slow, quick): (Vec<_>, Vec<_>) = held.into_iter().partition(|(pod, _)| pod == PODS[0]);
    assert_eq!((slow.len(), quick.len()), (6, 6), "{what}");
    assert_eq!(counted(cluster, v4), [6, 6], "{what}");
    close(quick);
    cluster.wait(&format!("{what}: the quick one has ended"), || counted(cluster, v4) == [6, 0]);

    let outcome = from.probe(Probe::new(transport, to).count(20)).unwrap();
    assert_eq!(outcome.servers(), BTreeMap::from([(PODS[1], 20)]), "{what}: {outcome}");
    cluster.wait(&format!("{what}: the probes have ended"), || counted(cluster, v4) == [6, 0]);
    let more = open(from, transport, to, 6);
    assert!(more.iter().all(|(pod, _)| pod == PODS[1]), "{what}");
    assert_eq!(counted(cluster, v4), [6, 6], "{what}");
    close(slow.into_iter().chain(more));
    cluster.wait(&format!("{what}: all have ended"), || counted(cluster, v4) == [0, 0]);
}

/// These, and MPTCP where the kernel has it.
fn transports(always: &[Transport]) -> Vec<Transport> {
    let mptcp = has_mptcp().then_some(Transport::Mptcp);
    always.iter().copied().chain(mptcp).collect()
}

#[test]
fn least_connections_spare_a_slow_backend_on_the_socket_path() {
    let cluster = least_connections();
    let node_port = at(cluster.lab.node("n1").addresses().v4, NODE_PORT);
    for from in [cluster.lab.pod("n1", "b"), cluster.lab.node("n1")] {
        for to in [vips()[0], vips()[1], node_port] {
            for transport in transports(&[Transport::Tcp, Transport::UdpConnected]) {
                a_slow_backend_is_spared(&cluster, &from, transport, to);
            }
        }
    }
    let status = cluster.kproxy("n1", &["status", "-o", "json"]);
    assert!(status.contains("kp_release"), "{status}");
}

/// No program is asked when connect() to AF_UNSPEC ends a connection: the next call tells.
#[test]
fn least_connections_count_a_socket_as_long_as_it_is_connected() {
    let cluster = least_connections();
    let pod = cluster.lab.pod("n1", "b");
    let [to, _] = vips();
    let node_port = at(cluster.lab.node("n1").addresses().v4, NODE_PORT);
    let direct = at(cluster.lab.pod("n2", "a").addresses().v4, TARGET);
    let any = at([0, 0, 0, 0], 0);
    let open = || counted(&cluster, true).iter().sum::<u64>();
    for transport in transports(&[Transport::UdpConnected, Transport::Tcp]) {
        let socket = pod.socket(transport, any).unwrap();
        let does = |step, connections: u64| {
            let seen = socket.step(step).unwrap();
            assert!(!matches!(seen, Seen::Failed(_)), "{transport:?} {step:?}: {seen:?}");
            assert_eq!(open(), connections, "{transport:?} {step:?}");
        };
        does(Step::Connect(to), 1);
        does(Step::Ask, 1);
        if transport == Transport::UdpConnected {
            let _another_pod_s = socket.step(Step::AskAt(node_port)).unwrap();
            does(Step::AskAt(to), 1);
            does(Step::Dissolve, 1);
            does(Step::AskAt(to), 0);
            does(Step::Connect(to), 1);
        }
        does(Step::Dissolve, 1);
        does(Step::Connect(node_port), 1);
        does(Step::Dissolve, 1);
        does(Step::Connect(direct), 0);
        does(Step::Dissolve, 0);
        does(Step::Connect(to), 1);
        socket.close().unwrap();
        cluster.wait("closed", || open() == 0);
    }
}

#[test]
fn least_connections_spare_a_slow_backend_on_the_packet_path() {
    let cluster = least_connections();
    for ip in cluster.lab.node("n1").addresses().both() {
        let to = at(ip, NODE_PORT);
        a_slow_backend_is_spared(&cluster, &cluster.lab.client(), Transport::Tcp, to);
    }
}

#[test]
fn least_connections_are_counted_while_the_daemon_is_dead() {
    let cluster = least_connections();
    let pod = cluster.lab.pod("n1", "b");
    let held = open(&pod, Transport::Tcp, vips()[0], 4);
    let proxy = &cluster.proxies[0];
    proxy.kill().unwrap();
    close(held);
    let mut more = open(&pod, Transport::Tcp, vips()[0], 6);
    assert_eq!(counted(&cluster, true), [3, 3]);
    proxy.start().unwrap();
    assert_eq!(counted(&cluster, true), [3, 3]);
    close(more.drain(..3));
    cluster.wait("three are closed", || counted(&cluster, true).iter().sum::<u64>() == 3);
    close(more);
    cluster.wait("all are closed", || counted(&cluster, true) == [0, 0]);
}

#[test]
fn without_least_connections_no_program_sees_sockets_close() {
    let cluster = Cluster::new(&PODS);
    let attached = || cluster.kproxy("n1", &["status", "-o", "json"]).contains("kp_release");
    assert!(!attached());
    for algorithm in ["random", "maglev"] {
        cluster.annotated(&PODS, picked_by(algorithm));
        cluster.wait(algorithm, || algorithms(&cluster, "n1") == [algorithm]);
    }
    assert!(!attached());
}

#[test]
fn the_annotation_is_changed_while_clients_connect() {
    let cluster = Cluster::new(&PODS);
    cluster.lab.route_services_via("n1").unwrap();
    let clients = [cluster.lab.pod("n1", "b"), cluster.lab.node("n1"), cluster.lab.client()];
    let held: Vec<_> =
        clients.iter().map(|from| from.hold(Hold::tcp(vips()[0])).unwrap()).collect();
    for (written, counts) in [
        ("random", "random"),
        ("maglev", "maglev"),
        ("least-connections", "least-connections"),
        ("maglev", "maglev"),
        ("fastest", "round-robin"),
        ("round-robin", "round-robin"),
    ] {
        cluster.annotated(&PODS, picked_by(written));
        cluster.wait(written, || algorithms(&cluster, "n1") == [counts]);
        cluster.wait("a bad value is reported, a good one is not", || {
            let status = cluster.try_kproxy("n1", &["status"]);
            let text = String::from_utf8_lossy(&status.stdout).into_owned();
            text.contains("kproxy.dev/lb-algorithm \"fastest\" is unknown") == (written != counts)
        });
        for from in &clients {
            for transport in [Transport::Tcp, Transport::UdpConnected, Transport::UdpUnconnected] {
                let outcome = from.probe(Probe::new(transport, vips()[0]).count(30)).unwrap();
                let what = format!("{written}: {} {transport:?} {outcome}", from.name());
                assert!(outcome.all_answered(), "{what}");
                assert_eq!(outcome.server_set(), PODS.into(), "{what}");
            }
        }
    }
    for held in held {
        let report = held.stop().unwrap();
        assert!(report.is_flawless() && report.servers.len() == 1, "{report:?}");
    }
}

#[test]
fn the_flag_counts_where_a_service_does_not_say() {
    let cluster = Cluster::with_arguments(&PODS, json!({}), &["--lb-algorithm", "random"]);
    assert_eq!(algorithms(&cluster, "n1"), ["random"]);
    cluster.annotated(&PODS, picked_by("maglev"));
    cluster.wait("the annotation", || algorithms(&cluster, "n1") == ["maglev"]);
    cluster.annotated(&PODS, json!({}));
    cluster.wait("the flag", || algorithms(&cluster, "n1") == ["random"]);
    let wide = cluster.kproxy("n1", &["dump", "services", "-o", "wide"]);
    assert!(wide.contains("ALGORITHM") && wide.contains("random"), "{wide}");
}

#[test]
fn maglev_leads_a_client_to_the_same_pod_by_either_node() {
    let pods = ["n1/a", "n1/b", "n2/a", "n2/b"];
    let cluster = Cluster::new(&pods);
    cluster.annotated(&pods, picked_by("maglev"));
    cluster.wait("maglev everywhere", || {
        ["n1", "n2"].iter().all(|node| algorithms(&cluster, node) == ["maglev"])
    });
    let client = cluster.lab.client();
    let own = client.addresses();
    let mut seen = BTreeMap::new();
    for port in 21_000..21_024 {
        let mut servers = ["n1", "n2"].map(|node| {
            let node = cluster.lab.node(node).addresses();
            let by = [(node.v4.into(), own.v4.into()), (node.v6.into(), own.v6.into())];
            by.map(|(to, from): (std::net::IpAddr, std::net::IpAddr)| {
                let probe = Probe::udp(at(to, NODE_PORT)).from(at(from, port));
                let outcome = client.probe(probe).unwrap();
                assert!(outcome.all_answered(), "{port} to {to}: {outcome}");
                outcome.answers().next().unwrap().server.clone()
            })
        });
        assert_eq!(servers[0], servers[1], "port {port} by n1 and by n2");
        for server in std::mem::take(&mut servers[0]) {
            *seen.entry(server).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}
