//! Datagrams whose fragments come in the wrong order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kproxy_lab::{Lab, Outcome, Place, Probe, ProxySpec, Source, Transport};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, SILENCE, at, vips};

/// Of a datagram with several fragments.
const LARGE: usize = 4_000;
/// Keeps what a test sends below the number of copies a second.
const PAUSE: Duration = Duration::from_millis(2);
const BACKENDS: [&str; 2] = ["n1/a", "n2/a"];

fn reversed(to: SocketAddr) -> Probe {
    Probe::new(Transport::UdpReversed, to).padding(LARGE)
}

fn headless(to: SocketAddr) -> Probe {
    Probe::new(Transport::UdpHeadless, to).padding(LARGE).timeout(SILENCE)
}

/// From outside by both nodes, and from pods.
fn ways(cluster: &Cluster) -> Vec<(Arc<Place>, SocketAddr)> {
    let lab = &cluster.lab;
    let pods = ["n1/a", "n1/b"].map(|name| lab.place(name).unwrap());
    let inside = pods.iter().flat_map(|pod| vips().map(|vip| (Arc::clone(pod), vip)));
    let nodes = lab.nodes();
    let addresses = nodes.iter().flat_map(|node| lab.node(node).addresses().both());
    inside.chain(addresses.map(|ip| (lab.client(), at(ip, NODE_PORT)))).collect()
}

fn all_answer(cluster: &Cluster, arguments: &[&str]) {
    for (from, to) in ways(cluster) {
        let outcome = from.probe(reversed(to).count(40).pause(PAUSE)).unwrap();
        let what = format!("{arguments:?}: {} {to}: {outcome}", from.name());
        assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
        assert_eq!(outcome.server_set(), BACKENDS.into(), "{what}");
        assert_eq!(outcome.sources(), [to].into(), "{what}");
    }
}

/// Lost fragments for this reason on n1.
fn lost(cluster: &Cluster, reason: &str) -> u64 {
    let rows = cluster.dump("n1", "counters");
    let rows = rows.as_array().into_iter().flatten();
    rows.filter_map(|row: &Value| row["drops"][reason].as_u64()).sum()
}

#[test]
fn ver_21_fragments_in_any_order_in_both_directions() {
    for snat in ["bpf", "netfilter"] {
        let arguments = &["--socket-lb", "host", "--snat", snat];
        let cluster = Cluster::with_arguments(&BACKENDS, json!({}), arguments);
        all_answer(&cluster, arguments);
        for reason in ["fragment-limit", "fragment-alone"] {
            assert_eq!(lost(&cluster, reason), 0, "{arguments:?} {reason}");
        }
    }
}

#[test]
fn the_rights_of_the_daemonset_are_enough() {
    let lab = Lab::builder().nodes(1).build().unwrap();
    let mut cluster = Cluster { lab, proxies: Vec::new() };
    cluster.web(&["n1/a"], json!({}));
    let rights = ["bpf", "net_admin", "perfmon", "sys_admin"];
    let spec = ProxySpec::kproxy(Source::Manifests).capabilities(&rights);
    cluster.proxies = vec![cluster.lab.start_proxy("n1", spec).unwrap()];
    let to = at(cluster.lab.node("n1").addresses().v4, NODE_PORT);
    let outcome = cluster.lab.client().probe(reversed(to).count(3)).unwrap();
    assert!(outcome.all_answered(), "{outcome}\n{}", cluster.logs());
}

#[test]
fn without_a_first_fragment_nothing_gets_out_and_nothing_is_kept() {
    let cluster = Cluster::with_arguments(&BACKENDS, json!({}), &["--socket-lb", "host"]);
    let router = cluster.lab.place("router").unwrap();
    let rules = "
        table inet leaks {
          chain seen {
            type filter hook prerouting priority -300
            ip daddr 10.96.0.0/16 counter
            ip6 daddr fd00:10:96::/112 counter
          }
        }";
    router.run("nft", &[rules]).unwrap();
    let leaks = || router.run("nft", &["list", "table", "inet", "leaks"]).unwrap();
    let pod = cluster.lab.pod("n1", "b");
    for (i, vip) in vips().into_iter().enumerate() {
        let outcome = pod.probe(headless(vip)).unwrap();
        assert_eq!(outcome.timeouts(), 1, "{outcome}");
        // All that were held were given up: counted as such.
        cluster.wait("given up", || lost(&cluster, "fragment-alone") == 4 * (i as u64 + 1));
    }
    assert_eq!(leaks().matches("packets 0").count(), 2, "{}", leaks());
    // What is no Service's does get there.
    for ip in ["10.96.200.1", "fd00:10:96::2001"] {
        let nobody = at(ip.parse::<std::net::IpAddr>().unwrap(), 53);
        assert_eq!(pod.probe(Probe::udp(nobody).timeout(SILENCE)).unwrap().answered(), 0);
    }
    assert_eq!(leaks().matches("packets 0").count(), 0, "{}", leaks());
    // To an address of the node they went their way: whose they were nobody knows.
    let client = cluster.lab.client();
    let node = cluster.lab.node("n1");
    for ip in node.addresses().both() {
        let outcome = client.probe(headless(at(ip, NODE_PORT))).unwrap();
        assert_eq!(outcome.timeouts(), 1, "{outcome}");
    }
    assert_eq!((lost(&cluster, "fragment-alone"), lost(&cluster, "fragment-limit")), (8, 0));
    all_answer(&cluster, &[]);
}

#[test]
fn without_a_daemon_fragments_in_order_go_on() {
    let cluster = Cluster::new(&["n1/a"]);
    let client = cluster.lab.client();
    let to = at(cluster.lab.node("n1").addresses().v4, NODE_PORT);
    let in_order = Probe::udp(to).padding(LARGE).count(3);
    let answered = |probe: &Probe| client.probe(probe.clone()).unwrap().answered();
    cluster.proxies[0].kill().unwrap();
    assert_eq!(answered(&in_order), 3);
    // Out of order they are lost, as many as may come: the buffer that nobody reads is full soon.
    assert_eq!(answered(&reversed(to).timeout(SILENCE)), 0);
    assert_eq!(answered(&in_order), 3);
    cluster.proxies[0].launch().unwrap();
    cluster.proxies[0].wait_ready().unwrap();
    cluster.eventually("a new daemon", &client, &reversed(to).count(3), Outcome::all_answered);
    assert_eq!(answered(&in_order), 3);
}
