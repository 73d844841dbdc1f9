//! `kproxy explain` against what real connections see, with the daemon alive and dead.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use kproxy_lab::manifest::{Service, Slice};
use kproxy_lab::{Family, Outcome, Place, Probe, Transport};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, PORT, SILENCE, TARGET, at, vips};

/// ClusterIPs of the Service without endpoints, of the one with policy Local, of the one with source
/// ranges, and of nobody.
const NONE: [&str; 2] = ["10.96.0.11", "fd00:10:96::b"];
const LOCAL: [&str; 2] = ["10.96.0.12", "fd00:10:96::c"];
const RANGES: [&str; 2] = ["10.96.0.13", "fd00:10:96::d"];
const NOBODY: &str = "10.96.0.99";
/// Load-balancer address of the Service with source ranges; the router leads it to n1.
const BALANCER: &str = "203.0.113.20";

/// Stands for the client: its own address is in a network namespace of this machine, as those of pods are.
const CLIENT: &str = "192.0.2.77";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A Service with one TCP port on these pods, and its slice.
fn objects(cluster: &Cluster, service: Service, name: &str, pods: &[&str]) -> [Value; 2] {
    let slice = Slice::of(name, Family::V4).port("tcp", "TCP", TARGET);
    let slice = pods.iter().fold(slice, |slice, pod| slice.pod(&cluster.lab.place(pod).unwrap()));
    [service.into(), slice.into()]
}

fn cluster() -> Cluster {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let gateway = cluster.lab.node("n1").ip(Family::V4).to_string();
    cluster.lab.router().run("ip", &["route", "add", BALANCER, "via", &gateway]).unwrap();
    let service = |name: &str, [v4, v6]: [&str; 2]| {
        Service::new(name).cluster_ips(v4, v6).port("tcp", "TCP", PORT, TARGET)
    };
    let local = service("local", LOCAL)
        .node_port(NODE_PORT + 1)
        .of_type("NodePort")
        .spec(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}));
    let ranges = service("ranges", RANGES)
        .of_type("LoadBalancer")
        .spec(json!({"loadBalancerSourceRanges": ["198.51.100.0/24"]}));
    let mut ranges = objects(&cluster, ranges, "ranges", &["n1/a"]);
    ranges[0]["status"] = json!({"loadBalancer": {"ingress": [{"ip": BALANCER}]}});
    cluster.write("none.yaml", objects(&cluster, service("none", NONE), "none", &[]));
    cluster.write("local.yaml", objects(&cluster, local, "local", &["n2/a"]));
    cluster.write("ranges.yaml", ranges);
    cluster.wait("the Services are there", || {
        let names = cluster.dump("n1", "frontends").to_string();
        ["\"none\"", "\"local\"", "\"ranges\""].iter().all(|name| names.contains(name))
    });
    cluster
}

/// What is said of one connection: the answer, the state of the view, and the exit code.
fn explain(cluster: &Cluster, to: &str, from: &str, options: &[&str]) -> (Value, Value, i32) {
    let words = [&["explain", to, "--from", from, "-o", "json"], options].concat();
    let output = cluster.try_kproxy("n1", &words);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{to} {from}: {error}; {}", String::from_utf8_lossy(&output.stderr))
    });
    let answer = told["dialled"][0]["answers"][0].clone();
    (answer, told["state"].clone(), output.status.code().unwrap())
}

/// Addresses of the endpoints that may get the connection.
fn may(answer: &Value) -> BTreeSet<IpAddr> {
    let candidates = answer["candidates"].as_array().unwrap().iter();
    let may = candidates.filter(|candidate| candidate["standing"] == "may");
    may.map(|candidate| ip(candidate["addr"].as_str().unwrap())).collect()
}

/// Compares with what a connection from there sees.
fn compare(
    cluster: &Cluster,
    (place, from): (&Place, &str),
    transport: Transport,
    to: SocketAddr,
    wanted: &str,
) {
    let protocol = if transport == Transport::Tcp { "tcp" } else { "udp" };
    // The verifier takes its time: of one kind of frontend.
    let simulates = transport == Transport::Tcp && to.port() == NODE_PORT + 1;
    let simulate: &[&str] = if simulates { &["--simulate"] } else { &[] };
    let (answer, _, code) = explain(cluster, &format!("{to}/{protocol}"), from, simulate);
    let verdict = answer["verdict"].as_str().unwrap();
    assert_eq!((verdict, code), (wanted, i32::from(wanted != "answered")), "{to} {from}: {answer}");
    assert!(!simulates || answer["simulated"]["agrees"] == true, "{to} {from}: {answer}");
    let count = if verdict == "answered" { 6 } else { 1 };
    let probe = Probe::new(transport, to).count(count).timeout(SILENCE);
    let outcome: Outcome = place.probe(probe).unwrap();
    let none = outcome.answered() == 0;
    let fits = match verdict {
        "answered" => outcome.all_answered(),
        "refused" => outcome.all_refused(),
        "dropped" => none && outcome.refused() == 0,
        _ => none,
    };
    assert!(fits, "{to} {from}: {outcome}; {answer}");
    let servers: BTreeSet<IpAddr> = outcome
        .server_set()
        .into_iter()
        .map(|name| cluster.lab.place(name).unwrap().ip(Family::of(to.ip())))
        .collect();
    assert_eq!(servers, may(&answer), "{to} {from}: {outcome}");
}

fn compare_all(cluster: &Cluster) {
    let (pod, node, client) =
        (cluster.lab.pod("n1", "b"), cluster.lab.node("n1"), cluster.lab.client());
    let own = [pod.ip(Family::V4).to_string(), CLIENT.to_owned()];
    let senders = [(&*pod, own[0].as_str()), (&*node, "node"), (&*client, own[1].as_str())];
    let [inside_pod, inside_node, outside] = senders;
    let node_port = |port| at(node.ip(Family::V4), port);
    let (tcp, udp) = (Transport::Tcp, Transport::UdpUnconnected);
    for from in [inside_pod, inside_node] {
        let pod = if from.1 == "node" { "node" } else { "pod" };
        for transport in [tcp, udp] {
            compare(cluster, from, transport, vips()[0], "answered");
            // Any of its kind fares alike.
            compare(cluster, (from.0, pod), transport, vips()[1], "answered");
            compare(cluster, from, transport, at(ip(NONE[0]), PORT), "refused");
        }
        compare(cluster, from, tcp, at(ip(LOCAL[0]), PORT), "dropped");
        compare(cluster, from, tcp, at(ip(BALANCER), PORT), "dropped");
        compare(cluster, from, tcp, at(ip(NOBODY), PORT), "left-alone");
        compare(cluster, from, tcp, node_port(NODE_PORT), "answered");
        // Policy Local is for senders outside.
        compare(cluster, from, tcp, node_port(NODE_PORT + 1), "answered");
    }
    for transport in [tcp, udp] {
        compare(cluster, outside, transport, node_port(NODE_PORT), "answered");
    }
    compare(cluster, outside, tcp, node_port(NODE_PORT + 1), "dropped");
    compare(cluster, outside, tcp, at(ip(BALANCER), PORT), "dropped");
}

#[test]
fn what_is_explained_is_what_connections_see_with_the_daemon_alive_and_dead() {
    let cluster = cluster();
    compare_all(&cluster);
    let (_, state, _) = explain(&cluster, "web:tcp", "node", &[]);
    assert!(state["pid"].is_i64() && state["last_heard"].is_null(), "{state}");
    cluster.proxies[0].kill().unwrap();
    compare_all(&cluster);
    let (_, state, _) = explain(&cluster, "web:tcp", "node", &[]);
    assert!(state["pid"].is_null() && state["last_heard"].is_i64(), "{state}");
    // What is not there is no answer, and names what may be meant.
    for (target, said) in [("wbe", "did you mean default/web"), ("web", "say which")] {
        let output = cluster.try_kproxy("n1", &["explain", target]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(said), "{stderr}");
    }
}
