//! `/metrics` of a daemon at work.

use std::net::SocketAddr;
use std::time::Duration;

use kproxy_lab::{Family, Hold, HttpOutcome, Outcome, Probe, manifest::Service};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, PORT, SILENCE, TARGET, at, vips};

const METRICS: &str = "127.0.0.1:10249";

fn scrape_at(cluster: &Cluster, address: &str) -> String {
    let to: SocketAddr = address.parse().unwrap();
    cluster.lab.node("n1").http_get(to, "/metrics").unwrap()
}

/// Value of a series of n1, written as it is told; 0 for one that is not there.
fn value(cluster: &Cluster, series: &str) -> f64 {
    let text = scrape_at(cluster, METRICS);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.parse().unwrap())
}

/// A series of one port of `web` over IPv4.
fn of_web(name: &str, port: &str, protocol: &str, more: &str) -> String {
    format!(
        "kproxy_service_{name}_total{{ip_family=\"IPv4\",namespace=\"default\",port=\"{port}\",\
         protocol=\"{protocol}\"{more},service=\"web\"}}"
    )
}

#[test]
fn connections_packets_drops_and_problems_are_told_as_they_happen() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let (pod, client) = (cluster.lab.pod("n1", "b"), cluster.lab.client());
    let tell = |what: &str, series: &str, wanted: &dyn Fn(f64) -> bool| {
        cluster.wait(what, || wanted(value(&cluster, series)));
    };
    let v4 = vips()[0];
    assert_eq!(value(&cluster, &of_web("connections", "tcp", "TCP", "")), 0.0);

    // Sockets of a pod have no packets on the packet path.
    assert!(pod.probe(Probe::tcp(v4).count(7)).unwrap().all_answered());
    tell("connections of a pod", &of_web("connections", "tcp", "TCP", ""), &|n| n == 7.0);
    assert_eq!(value(&cluster, &of_web("packets", "tcp", "TCP", "")), 0.0);
    let node = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    assert!(client.probe(Probe::tcp(node).count(5)).unwrap().all_answered());
    tell("connections from outside", &of_web("connections", "tcp", "TCP", ""), &|n| n == 12.0);
    // A handshake, a request and an answer have five packets at least.
    tell("packets", &of_web("packets", "tcp", "TCP", ""), &|n| n >= 25.0);
    tell("bytes", &of_web("bytes", "tcp", "TCP", ""), &|n| n >= 25.0 * 40.0);
    assert!(value(&cluster, "kproxy_connections_total") >= 12.0);

    let passes = "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";
    let before = value(&cluster, passes);
    cluster.web(&[], json!({}));
    cluster.eventually("refused", &pod, &Probe::tcp(v4), Outcome::all_refused);
    tell("a pass", passes, &|n| n > before);
    let dropped = of_web("drops", "tcp", "TCP", ",reason=\"no-backend\"");
    tell("refusals", &dropped, &|n| n >= 1.0);
    assert!(value(&cluster, "kproxy_drops_total{reason=\"no-backend\"}") >= 1.0);

    assert_eq!(value(&cluster, "kproxy_problems"), 0.0);
    let bad = Service::new("bad")
        .cluster_ips("10.96.0.300", "fd00:10:96::bad")
        .port("tcp", "TCP", PORT, TARGET);
    cluster.write("bad.yaml", [Value::from(bad)]);
    tell("problems", "kproxy_problems", &|n| n == 1.0);
    tell("fill of the maps", "kproxy_map_entries{map=\"KP_FRONTENDS\"}", &|n| n > 0.0);
}

#[test]
fn ct_10_udp_flows_of_an_endpoint_that_has_gone_are_counted() {
    let cluster = Cluster::new(&["n2/a"]);
    let deleted = |family| {
        let name = "kubeproxy_conntrack_reconciler_deleted_entries_total";
        value(&cluster, &format!("{name}{{ip_family=\"{family}\"}}"))
    };
    let to = at(cluster.lab.node("n1").ip(Family::V6), NODE_PORT);
    let pause = Duration::from_millis(200);
    let held = cluster.lab.client().hold(Hold::udp(to).timeout(pause)).unwrap();
    assert_eq!((deleted("IPv4"), deleted("IPv6")), (0.0, 0.0));
    cluster.web(&["n1/a"], json!({}));
    cluster.wait("the flow is ended", || deleted("IPv6") == 1.0);
    cluster.wait("another endpoint", || held.report().unwrap().servers.contains_key("n1/a"));
    assert_eq!(deleted("IPv4"), 0.0);

    let pod = cluster.lab.pod("n1", "b");
    let socket = pod.hold(Hold::udp(vips()[0]).timeout(pause)).unwrap();
    assert_eq!(value(&cluster, "kproxy_udp_sockets_closed_total"), 0.0);
    cluster.web(&["n2/a"], json!({}));
    cluster.wait("closed", || value(&cluster, "kproxy_udp_sockets_closed_total") >= 1.0);
    assert!(socket.report().is_ok());
}

#[test]
fn metrics_are_for_the_node_unless_an_address_is_given() {
    let asked = |cluster: &Cluster, to: SocketAddr| {
        cluster.lab.client().http(to, "GET", "/metrics", SILENCE * 2).unwrap()
    };
    let at_node = |cluster: &Cluster, port| at(cluster.lab.node("n1").ip(Family::V4), port);
    let cluster = Cluster::new(&[]);
    assert_eq!(asked(&cluster, at_node(&cluster, 10_249)), HttpOutcome::Refused);

    // Another program has the port: Services work, and it is taken once it is free.
    cluster.proxies[0].stop().unwrap();
    let node = cluster.lab.node("n1");
    let loopback = "127.0.0.1".parse().unwrap();
    node.serve_at(&[loopback], 10_249, None).unwrap();
    cluster.proxies[0].start().unwrap();
    let problems = || cluster.try_kproxy("n1", &["status", "-o", "json"]).stdout;
    let is_told = || String::from_utf8_lossy(&problems()).contains("--metrics-bind-address");
    cluster.wait("the port is taken", is_told);
    node.stop_serving(10_249).unwrap();
    cluster.wait("it is served", || !is_told());
    assert_eq!(value(&cluster, "kproxy_problems"), 0.0);
    assert!(scrape_at(&cluster, METRICS).contains("kproxy_build_info"));
    drop(cluster);

    let open = Cluster::with_arguments(&[], json!({}), &["--metrics-bind-address", "0.0.0.0:9100"]);
    let to = at_node(&open, 9100);
    let HttpOutcome::Answered(answer) = asked(&open, to) else { panic!("{}", open.logs()) };
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    drop(open);

    let none = Cluster::with_arguments(&[], json!({}), &["--metrics-bind-address", ""]);
    let closed = none.lab.node("n1");
    let outcome = closed.http(METRICS.parse::<SocketAddr>().unwrap(), "GET", "/metrics", SILENCE);
    assert_eq!(outcome.unwrap(), HttpOutcome::Refused);
}
