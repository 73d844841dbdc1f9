//! SCTP with real sockets, where the kernel has them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use kproxy_lab::manifest::{Service, slices};
use kproxy_lab::{Family, Lab, Outcome, Place, Probe};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::{Cluster, NODE_PORT, PORT, VIPS, at, vips};

/// SCTP port of the pods; their TCP and UDP server has another one.
const TARGET: u16 = 9_899;
/// Linux does not listen to an error that is there before connect() waits for the answer, as on links
/// as short as these: the error about the second INIT, 3 seconds later, is heard.
const SECOND_INIT: Duration = Duration::from_secs(10);
const BACKENDS: [&str; 2] = ["n1/a", "n2/a"];

/// Gives `web` an SCTP port only, with the pods as endpoints.
fn write(cluster: &Cluster, pods: &[&str]) {
    let service = Service::new("web")
        .cluster_ips(VIPS[0], VIPS[1])
        .of_type("NodePort")
        .port("sctp", "SCTP", PORT, TARGET)
        .node_port(NODE_PORT);
    let places: Vec<_> = pods.iter().map(|name| cluster.lab.place(name).unwrap()).collect();
    let places: Vec<&Place> = places.iter().map(|place| &**place).collect();
    let [v4, v6] = slices("web", "sctp", "SCTP", TARGET, &places);
    cluster.write("web.yaml", [Value::from(service), v4.into(), v6.into()]);
}

/// From a socket that is bound to one address: another one names all addresses of its machine in
/// its INIT, and those cannot be translated (kube-proxy's neither).
fn probe(from: &Place, to: SocketAddr) -> Probe {
    Probe::sctp(to).from((from.ip(Family::of(to.ip())), 0))
}

/// All backends answer at this address. Those of `node` see the client, the others `elsewhere`.
fn all_answer(cluster: &Cluster, from: &Place, to: SocketAddr, node: &str, elsewhere: IpAddr) {
    let outcome = from.probe(probe(from, to).count(12)).unwrap();
    let what = format!("{} {to}: {outcome}", from.name());
    assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
    assert_eq!(outcome.server_set(), BACKENDS.into(), "{what}");
    assert_eq!(outcome.peers(), [to].into(), "{what}");
    for answer in outcome.answers() {
        let near = answer.server.starts_with(node);
        let wanted = if near { from.ip(Family::of(to.ip())) } else { elsewhere };
        assert_eq!(answer.client.ip(), wanted, "{what} by {}", answer.server);
    }
    if from.addresses().both().contains(&to.ip()) {
        // A packet that fits the loopback device is sent again in fragments, whose checksum nobody can
        // change (docs/decisions/0013-packets-of-the-node.md).
        return;
    }
    // Messages of several packets in both directions, over one association.
    let long = from.probe(probe(from, to).count(4).same_socket().padding(20_000)).unwrap();
    assert!(long.all_answered() && long.server_set().len() == 1, "{what}: {long}");
}

/// Whether the kernel opens SCTP sockets.
fn is_there() -> bool {
    match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)) {
        Ok(_) => true,
        Err(error) => {
            println!("pkt_04: real sockets not tried, the kernel opens no SCTP socket: {error}");
            false
        }
    }
}

#[test]
fn pkt_04_sctp_of_processes_of_the_node_in_every_mode() {
    for mode in ["all", "none"] {
        let lab = Lab::builder().nodes(2).build().unwrap();
        let cluster = Cluster::in_lab(lab, &[], json!({}), &["--socket-lb", mode]);
        let node = cluster.lab.node("n1");
        // A link, or before 6.6 a filter.
        let filters = ["filter", "show", "dev", "lo", "egress"];
        let lo = || {
            cluster.kproxy("n1", &["status"]).contains("kp_node_egress")
                || node.run("tc", &filters).unwrap().contains("kp_node_egress")
        };
        write(&cluster, &BACKENDS);
        cluster.wait("lo is served", lo);
        if !is_there() {
            continue;
        }
        for name in ["n1/a", "n2/a", "n1", "n2"] {
            cluster.lab.place(name).unwrap().serve_sctp(TARGET).unwrap();
        }
        let node_ports = node.addresses().both().map(|ip| at(ip, NODE_PORT));
        let all: Vec<SocketAddr> = vips().into_iter().chain(node_ports).collect();
        for to in &all {
            all_answer(&cluster, &node, *to, "n1", node.ip(Family::of(to.ip())));
        }
        // Backends that are processes of nodes, this one's among them.
        write(&cluster, &["n1", "n2"]);
        for to in &all {
            let probe = probe(&node, *to).count(8);
            cluster.eventually("nodes", &node, &probe, |outcome| {
                outcome.all_answered() && outcome.server_set() == ["n1", "n2"].into()
            });
        }
        write(&cluster, &[]);
        for to in &all {
            let probe = probe(&node, *to).timeout(SECOND_INIT);
            cluster.eventually("refused", &node, &probe, Outcome::all_refused);
        }
    }
}

#[test]
fn pkt_04_sctp_of_pods_and_from_outside_and_no_module_because_of_a_service() {
    let module = Path::new("/sys/module/sctp");
    let was_there = module.exists();
    let lab = Lab::builder().nodes(2).pods(&["a", "b", "vm"]).build().unwrap();
    let cluster = Cluster::in_lab(lab, &[], json!({}), &[]);
    write(&cluster, &BACKENDS);
    let served = || cluster.kproxy("n1", &["dump", "services"]).contains("SCTP");
    cluster.wait("the SCTP port is served", served);
    if was_there {
        println!("pkt_04: whether a Service loads the module cannot be told: it is there already");
    } else {
        assert!(!module.exists(), "the module sctp is loaded");
    }
    if !is_there() {
        return;
    }
    for name in BACKENDS {
        cluster.lab.place(name).unwrap().serve_sctp(TARGET).unwrap();
    }

    for name in ["n1/b", "n1/vm"] {
        let pod = cluster.lab.place(name).unwrap();
        // The first INIT of all is lost: it has the programs attached that translate answers.
        let first = probe(&pod, vips()[0]).timeout(SECOND_INIT);
        cluster.eventually("the first", &pod, &first, Outcome::all_answered);
        for vip in vips() {
            all_answer(&cluster, &pod, vip, "n1", pod.ip(Family::of(vip.ip())));
        }
    }
    let client = cluster.lab.client();
    for node in cluster.lab.nodes() {
        for ip in cluster.lab.node(&node).addresses().both() {
            all_answer(&cluster, &client, at(ip, NODE_PORT), &node, ip);
        }
    }

    write(&cluster, &[]);
    let (pod, node) = (cluster.lab.pod("n1", "b"), cluster.lab.node("n1"));
    for vip in vips() {
        let probe = probe(&pod, vip).timeout(SECOND_INIT);
        cluster.eventually("refused", &pod, &probe, Outcome::all_refused);
    }
    for ip in node.addresses().both() {
        let probe = probe(&client, at(ip, NODE_PORT)).timeout(SECOND_INIT);
        cluster.eventually("refused", &client, &probe, Outcome::all_refused);
    }
    let drops = cluster.kproxy("n1", &["dump", "counters"]);
    assert!(drops.contains("no-backend"), "{drops}");
}
