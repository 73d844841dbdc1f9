//! What a node tells and where it answers: health checks, addresses of NodePorts, free addresses of
//! Service ranges.

use std::net::{IpAddr, SocketAddr};

use crate::common::{Cluster, NODE_PORT, SILENCE, at, vips};
use kproxy_lab::{Family, HttpOutcome, Outcome, Place, Probe, manifest};
use serde_json::{Value, json};

/// Port of the health checks.
const HEALTH: u16 = 32_000;

fn local(port: u16) -> Value {
    json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port})
}

/// Status and body of a health check, or why there is none.
fn health(from: &Place, to: SocketAddr) -> String {
    match from.http(to, "GET", "/", SILENCE).unwrap() {
        HttpOutcome::Answered(answer) => format!("{} {}", answer.status, answer.body),
        HttpOutcome::Refused => "refused".to_owned(),
        failed => format!("{failed:?}"),
    }
}

fn until_health(cluster: &Cluster, what: &str, to: SocketAddr, words: &[&str]) {
    let client = cluster.lab.client();
    let fits = || {
        let text = health(&client, to);
        words.iter().all(|word| text.contains(word))
    };
    cluster.wait(&format!("{what} {to} {words:?}"), fits);
}

#[test]
fn hcn_01_06_08_12_load_balancers_learn_of_each_nodes_own_endpoints() {
    let cluster = Cluster::with(&["n1/a", "n2/a"], local(HEALTH));
    let at_node = |node: &str, family| cluster.lab.node(node).at(family, HEALTH);
    let all = [("n1", Family::V4), ("n1", Family::V6), ("n2", Family::V4), ("n2", Family::V6)];
    for (node, family) in all {
        let words = ["\"localEndpoints\": 1", "\"serviceProxyHealthy\": true"];
        until_health(&cluster, node, at_node(node, family), &words);
    }
    // Terminating endpoints do not count, while traffic still reaches them.
    cluster.web(&["n1/a", "~n2/a"], local(HEALTH));
    for family in Family::ALL {
        let words = ["503", "\"localEndpoints\": 0"];
        until_health(&cluster, "terminating", at_node("n2", family), &words);
        until_health(&cluster, "ready", at_node("n1", family), &["\"localEndpoints\": 1"]);
        let to = cluster.lab.node("n2").at(family, NODE_PORT);
        let outcome = cluster.lab.client().probe(Probe::tcp(to)).unwrap();
        assert_eq!(outcome.servers(), [("n2/a", 1)].into(), "{outcome}");
    }
    // Another port, another policy.
    cluster.web(&["n1/a"], local(HEALTH + 1));
    until_health(&cluster, "old port", at_node("n1", Family::V4), &["refused"]);
    let other = cluster.lab.node("n1").at(Family::V4, HEALTH + 1);
    until_health(&cluster, "new port", other, &["\"localEndpoints\": 1"]);
    let mut anywhere = local(HEALTH + 1);
    anywhere["externalTrafficPolicy"] = "Cluster".into();
    cluster.web(&["n1/a"], anywhere);
    until_health(&cluster, "policy Cluster", other, &["refused"]);
}

#[test]
fn hcn_09_a_health_check_port_that_is_taken_is_a_problem_of_its_service() {
    let cluster = Cluster::new(&["n1/a"]);
    let host = cluster.lab.node("n1");
    host.serve(HEALTH).unwrap();
    cluster.web(&["n1/a"], local(HEALTH));
    let problems = || {
        let output = cluster.try_kproxy("n1", &["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status["problems"].to_string()
    };
    cluster.wait("a problem", || problems().contains("healthCheckNodePort cannot be served"));
    assert!(problems().contains("Service default/web"), "{}", problems());
    let outcome = cluster.lab.client().probe(Probe::tcp(host.at(Family::V4, NODE_PORT))).unwrap();
    assert!(outcome.all_answered(), "the Service works: {outcome}");
    host.stop_serving(HEALTH).unwrap();
    for family in Family::ALL {
        until_health(&cluster, "freed", host.at(family, HEALTH), &["\"localEndpoints\": 1"]);
    }
    cluster.wait("no problem", || !problems().contains("healthCheckNodePort"));
}

fn answers(cluster: &Cluster, what: &str, from: &Place, to: SocketAddr) {
    cluster.eventually(what, from, &Probe::tcp(to).timeout(SILENCE), Outcome::all_answered);
}

fn refuses(cluster: &Cluster, what: &str, from: &Place, to: SocketAddr) {
    cluster.eventually(what, from, &Probe::tcp(to).timeout(SILENCE), Outcome::all_refused);
}

#[test]
fn np_02_np_05_np_08_np_09_nodeports_answer_on_the_addresses_in_the_ranges() {
    let ranges = "--nodeport-addresses=172.18.0.8/29,198.51.100.0/24";
    let cluster = Cluster::with_arguments(&["n1/a"], local(HEALTH), &[ranges]);
    let (client, host) = (cluster.lab.client(), cluster.lab.node("n1"));
    // 172.18.0.11 is within; there is no IPv6 range, so every IPv6 address answers.
    for family in Family::ALL {
        answers(&cluster, "in a range", &client, host.at(family, NODE_PORT));
        answers(&cluster, "from the node", &host, host.at(family, NODE_PORT));
        until_health(&cluster, "in a range", host.at(family, HEALTH), &["\"localEndpoints\": 1"]);
    }
    refuses(&cluster, "loopback", &host, at([127, 0, 0, 1], NODE_PORT));
    let address = |text: &str, port| at(text.parse::<IpAddr>().unwrap(), port);
    host.run("ip", &["address", "add", "172.18.0.99/24", "dev", "eth0"]).unwrap();
    host.run("ip", &["address", "add", "198.51.100.1/32", "dev", "lo"]).unwrap();
    answers(&cluster, "a new address", &host, address("198.51.100.1", NODE_PORT));
    refuses(&cluster, "outside the ranges", &client, address("172.18.0.99", NODE_PORT));
    refuses(&cluster, "outside the ranges", &host, address("172.18.0.99", NODE_PORT));
    until_health(&cluster, "outside the ranges", address("172.18.0.99", HEALTH), &["refused"]);
    let listens = || health(&host, address("198.51.100.1", HEALTH)).contains("localEndpoints");
    cluster.wait("a new address", listens);
    host.run("ip", &["address", "del", "198.51.100.1/32", "dev", "lo"]).unwrap();
    // The ClusterIP has nothing to do with it.
    assert!(cluster.lab.pod("n1", "b").probe(Probe::tcp(vips()[0])).unwrap().all_answered());
}

#[test]
fn np_03_np_04_node_05_primary_follows_the_node_object_and_never_means_everything() {
    let cluster =
        Cluster::with_arguments(&["n1/a"], local(HEALTH), &["--nodeport-addresses=primary"]);
    let (client, host) = (cluster.lab.client(), cluster.lab.node("n1"));
    let own = host.at(Family::V4, NODE_PORT);
    let problems = || cluster.try_kproxy("n1", &["status", "-o", "json"]).stdout;
    let problems = || String::from_utf8_lossy(&problems()).into_owned();
    refuses(&cluster, "no Node object", &client, own);
    assert!(problems().contains("--nodeport-addresses"), "{}", problems());
    let node = |addresses: &[&str]| {
        let mut node = manifest::node(&host);
        let internal = |ip: &&str| json!({"type": "InternalIP", "address": ip});
        node["status"]["addresses"] = addresses.iter().map(internal).collect();
        cluster.write("node.yaml", [node]);
    };
    node(&["172.18.0.11"]);
    answers(&cluster, "the primary address", &client, own);
    // Not this family, not loopback, no other address.
    refuses(&cluster, "another family", &client, host.at(Family::V6, NODE_PORT));
    refuses(&cluster, "loopback", &host, at([127, 0, 0, 1], NODE_PORT));
    until_health(&cluster, "primary", host.at(Family::V4, HEALTH), &["\"localEndpoints\": 1"]);
    until_health(&cluster, "another family", host.at(Family::V6, HEALTH), &["refused"]);
    assert!(!problems().contains("--nodeport-addresses"), "{}", problems());
    node(&["172.18.0.98", "fd00:18::11"]);
    answers(&cluster, "a second family", &client, host.at(Family::V6, NODE_PORT));
    refuses(&cluster, "the former address", &client, own);
    host.run("ip", &["address", "add", "172.18.0.98/24", "dev", "eth0"]).unwrap();
    let late = at("172.18.0.98".parse::<IpAddr>().unwrap(), NODE_PORT);
    answers(&cluster, "a new primary address", &client, late);
}

#[test]
fn ver_16_node_08_free_addresses_of_a_service_range_lead_nowhere() {
    let cluster = Cluster::new(&["n1/a"]);
    cluster.lab.route_services_via("n1").unwrap();
    let free = ["10.96.0.99", "fd00:10:96::99"].map(|ip| at(ip.parse::<IpAddr>().unwrap(), 80));
    let from = [cluster.lab.pod("n1", "b"), cluster.lab.node("n1"), cluster.lab.client()];
    let dropped = || cluster.dump("n1", "counters").to_string().contains("free-service-address");
    // Without ranges such packets are the network's business.
    assert!(!dropped());
    let ranges = |ranges: &[&str]| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges},
        })
    };
    cluster.write("ranges.yaml", [ranges(&["10.96.0.0/16", "fd00:10:96::/112"])]);
    let probe = Probe::udp(free[0]).timeout(std::time::Duration::from_millis(50));
    cluster.eventually("dropped", &from[0], &probe, |_| dropped());
    for from in &from {
        for to in free {
            for probe in [Probe::tcp(to), Probe::udp(to)] {
                let outcome = from.probe(probe.timeout(SILENCE)).unwrap();
                assert_eq!(outcome.timeouts(), 1, "{} {to}: {outcome}", from.name());
            }
        }
        // Known addresses are as they were: served, and refused on ports that they do not have.
        for vip in vips() {
            assert!(from.probe(Probe::tcp(vip)).unwrap().all_answered(), "{}", from.name());
            let unknown = SocketAddr::new(vip.ip(), 81);
            let outcome = from.probe(Probe::tcp(unknown).timeout(SILENCE)).unwrap();
            assert!(outcome.all_refused(), "{} {unknown}: {outcome}", from.name());
        }
    }
    // Another range: nothing of the first is dropped any more.
    let count = |cluster: &Cluster| cluster.dump("n1", "counters").to_string();
    cluster.write("ranges.yaml", [ranges(&["10.97.0.0/16"])]);
    cluster.wait("the range is gone", || {
        let before = count(&cluster);
        let probe = Probe::udp(free[0]).timeout(std::time::Duration::from_millis(50));
        from[0].probe(probe).unwrap();
        count(&cluster) == before
    });
}
