//! UDP flows and sockets when endpoints drain and go.

use std::time::Duration;

use crate::common::{Cluster, NODE_PORT, TARGET, at, vips};
use kproxy_lab::{Family, Held, Hold, HoldReport, Lab, Probe, ProxySpec, Source, Transport};
use serde_json::json;

fn servers(held: &Held) -> Vec<String> {
    held.report().unwrap().servers.into_keys().collect()
}

/// Answers that have come since.
fn goes_on(cluster: &Cluster, what: &str, held: &Held) {
    let answered = held.report().unwrap().answered;
    cluster.wait(what, || held.report().unwrap().answered > answered + 10);
}

/// Far longer than an answer takes, also where the kernel is emulated on a busy machine; what moves loses one.
fn patient(hold: Hold) -> Hold {
    hold.timeout(Duration::from_secs(2))
}

#[test]
fn ct_01_ct_05_flows_stay_with_endpoints_that_serve_on() {
    let cluster = Cluster::new(&["n1/a"]);
    let client = cluster.lab.client();
    let to = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    let held = client.hold(patient(Hold::udp(to))).unwrap();
    let elsewhere = |wanted: &str| {
        let probe = Probe::udp(to).count(4);
        cluster.eventually(wanted, &client, &probe, |o| o.server_set() == [wanted].into());
    };
    // Terminating: new flows go elsewhere, this one stays.
    cluster.web(&["~n1/a", "n2/a"], json!({}));
    elsewhere("n2/a");
    goes_on(&cluster, "terminating", &held);
    // A policy that gives strangers other endpoints does not matter either.
    cluster.web(&["~n1/a", "n1/b", "n2/a"], json!({"externalTrafficPolicy": "Local"}));
    elsewhere("n1/b");
    goes_on(&cluster, "policy Local", &held);
    // Nor does a daemon that starts anew: it knows before it sweeps.
    cluster.proxies[0].kill().unwrap();
    cluster.proxies[0].launch().unwrap();
    cluster.proxies[0].wait_ready().unwrap();
    goes_on(&cluster, "a new daemon", &held);
    let report = held.report().unwrap();
    assert_eq!((servers(&held), report.lost), (vec!["n1/a".to_owned()], 0), "{report:?}");
    // Gone at last.
    cluster.web(&["n1/b", "n2/a"], json!({}));
    cluster.wait("the flow moves", || servers(&held).len() == 2);
}

#[test]
fn ct_05_unconnected_sockets_of_pods_stay_with_an_endpoint_that_serves_on() {
    let cluster = Cluster::new(&["n2/a"]);
    let pod = cluster.lab.pod("n1", "b");
    let hold = |vip| pod.hold(patient(Hold::new(Transport::UdpUnconnected, vip))).unwrap();
    let held = vips().map(hold);
    let probe = Probe::udp(vips()[0]).count(4);
    let new_ones = |what: &str, wanted: &[&str]| {
        let wanted = wanted.iter().copied().collect();
        cluster.eventually(what, &pod, &probe, |o| o.server_set() == wanted);
    };
    cluster.web(&["~n2/a", "n1/a"], json!({}));
    new_ones("terminating", &["n1/a"]);
    cluster.web(&["n2/a", "n1/a"], json!({}));
    new_ones("ready again", &["n1/a", "n2/a"]);
    // A policy that leaves it out, and a daemon that starts anew.
    cluster.web(&["n2/a", "n1/a"], json!({"internalTrafficPolicy": "Local"}));
    new_ones("policy Local", &["n1/a"]);
    cluster.proxies[0].kill().unwrap();
    cluster.proxies[0].launch().unwrap();
    cluster.proxies[0].wait_ready().unwrap();
    for held in &held {
        goes_on(&cluster, "serving", held);
        assert_eq!(servers(held), ["n2/a"]);
    }
    assert!(cluster.proxies[0].log().contains("writes=0"), "{}", cluster.logs());
    cluster.web(&["n1/a"], json!({}));
    for held in &held {
        cluster.wait("re-aimed", || servers(held).contains(&"n1/a".to_owned()));
        assert_eq!(held.report().unwrap().lost, 0);
    }
}

/// What closed sockets see: ECONNABORTED while they wait for an answer, EDESTADDRREQ when they send.
fn aborted(report: &HoldReport) -> bool {
    ["ECONNABORTED", "EDESTADDRREQ"].iter().any(|name| report.errors.contains_key(*name))
}

#[test]
fn connected_udp_sockets_of_a_removed_endpoint_get_an_error_in_every_pod() {
    let cluster = Cluster::new(&["n2/a"]);
    let (pod, host) = (cluster.lab.pod("n1", "b"), cluster.lab.node("n1"));
    let direct = cluster.lab.pod("n2", "a").addresses().both().map(|ip| at(ip, TARGET));
    let hold = |from: &kproxy_lab::Place, to| from.hold(patient(Hold::udp(to))).unwrap();
    let through: Vec<Held> = vips()
        .into_iter()
        .flat_map(|vip| [hold(&pod, vip), hold(&pod, kproxy_lab::mapped(vip)), hold(&host, vip)])
        .chain([hold(&host, at([127, 0, 0, 1], NODE_PORT))])
        .collect();
    let directly: Vec<Held> = direct.into_iter().map(|to| hold(&pod, to)).collect();
    // As long as the endpoint serves, nothing happens to anybody.
    cluster.web(&["~n2/a", "n1/a"], json!({}));
    let probe = Probe::udp(vips()[0]).count(4);
    cluster.eventually("draining", &pod, &probe, |o| o.server_set() == ["n1/a"].into());
    for held in through.iter().chain(&directly) {
        goes_on(&cluster, "draining", held);
        assert!(held.report().unwrap().is_flawless(), "{:?}", held.report().unwrap());
    }
    cluster.web(&["n1/a"], json!({}));
    for held in &through {
        cluster.wait("an error", || aborted(&held.report().unwrap()));
        assert_eq!(servers(held), ["n2/a"]);
    }
    // Who went to the pod itself is not touched, nor who dials anew.
    for held in directly {
        goes_on(&cluster, "directly", &held);
        let report = held.stop().unwrap();
        assert!(report.is_flawless(), "{report:?}");
    }
    let outcome = pod.probe(Probe::udp(vips()[0])).unwrap();
    assert_eq!(outcome.servers(), [("n1/a", 1)].into());
    assert!(cluster.logs().contains("closed UDP sockets"), "{}", cluster.logs());
}

#[test]
fn ct_07_sockets_are_closed_also_when_no_endpoint_is_left() {
    let cluster = Cluster::new(&["n2/a"]);
    let pod = cluster.lab.pod("n1", "b");
    let held = pod.hold(patient(Hold::udp(vips()[1]))).unwrap();
    let unconnected = Hold::new(Transport::UdpUnconnected, vips()[0]);
    let unconnected = pod.hold(patient(unconnected)).unwrap();
    // Also when it goes while no daemon looks.
    cluster.proxies[0].kill().unwrap();
    cluster.web(&[], json!({}));
    cluster.proxies[0].launch().unwrap();
    cluster.proxies[0].wait_ready().unwrap();
    cluster.wait("an error", || aborted(&held.report().unwrap()));
    // Unconnected sockets are refused, and go on with the next endpoint.
    let refused = |held: &Held| {
        held.report().unwrap().errors.keys().any(|name| name.contains("ECONNREFUSED"))
    };
    cluster.wait("refused", || refused(&unconnected));
    cluster.web(&["n1/a"], json!({}));
    cluster.wait("re-aimed", || servers(&unconnected).contains(&"n1/a".to_owned()));
}

#[test]
fn without_the_right_to_enter_pods_that_is_a_problem_and_the_rest_works() {
    let lab = Lab::builder().nodes(1).build().unwrap();
    let spec = ProxySpec::kproxy(Source::Manifests).capabilities(&["bpf", "net_admin", "perfmon"]);
    let proxy = lab.start_proxy("n1", spec).unwrap();
    proxy.wait_for_log("the network namespaces of pods cannot be entered").unwrap();
    assert_eq!(proxy.log().matches("cannot be entered").count(), 1, "{}", proxy.log());
}
