//! What kproxy says of its own health and settings, as kube-proxy does: to load balancers, to tools on the
//! node, to the probes of its pod.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kproxy_lab::{Family, HttpOutcome, Lab, Place};
use serde_json::{Value, json};

use crate::common::{Cluster, SILENCE};

/// Where load balancers ask.
const HEALTHZ: u16 = 10_256;
/// Where tools on the node ask.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);

/// Status and body.
fn ask(from: &Place, to: SocketAddr, path: &str) -> (u16, String) {
    match from.http(to, "GET", path, SILENCE).unwrap() {
        HttpOutcome::Answered(answer) => (answer.status, answer.body),
        failed => (0, format!("{failed:?}")),
    }
}

fn node(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": spec})
}

#[test]
fn hz_06_07_load_balancers_leave_a_node_that_is_about_to_go() {
    let cluster = Cluster::new(&["n1/a"]);
    let client = cluster.lab.client();
    let at = |family| cluster.lab.node("n1").at(family, HEALTHZ);
    let until = |what: &str, status: u16| {
        cluster.wait(what, || ask(&client, at(Family::V4), "/healthz").0 == status);
    };
    for family in Family::ALL {
        let (status, body) = ask(&client, at(family), "/healthz");
        assert_eq!(status, 200, "{family:?}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["nodeEligible"], true, "{body}");
    }
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    cluster.write("node.yaml", [node(json!({ "taints": taint }))]);
    until("a node that the autoscaler deletes", 503);
    assert_eq!(ask(&client, at(Family::V6), "/livez").0, 200);
    cluster.write("node.yaml", [node(json!({"unschedulable": true}))]);
    until("a node that stays", 200);
    let metrics = cluster.lab.node("n1").http_get(METRICS, "/metrics").unwrap();
    for series in ["healthz_total{code=\"503\"}", "healthz_total{code=\"200\"}", "livez_total{"] {
        assert!(metrics.contains(&format!("kubeproxy_proxy_{series}")), "{series}: {metrics}");
    }
}

#[test]
fn tools_and_probes_hear_what_is_in_force() {
    let flags = ["--conntrack-tcp-timeout-close-wait", "7m", "--conntrack-tcp-be-liberal"];
    let cluster = Cluster::with_arguments(&["n1/a"], json!({}), &flags);
    let n1 = cluster.lab.node("n1");
    let get = |path: &str| n1.http_get(METRICS, path).unwrap();
    assert_eq!((get("/proxyMode").as_str(), get("/healthz").as_str()), ("nftables", "ok"));
    let config: Value = serde_json::from_str(&get("/configz")).unwrap();
    let config = &config["kubeproxy.config.k8s.io"];
    assert_eq!(
        (&config["kind"], &config["mode"]),
        (&"KubeProxyConfiguration".into(), &"nftables".into())
    );
    assert_eq!(config["conntrack"]["tcpCloseWaitTimeout"], "7m0s", "{config}");

    let setting = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        n1.run("cat", &[&path]).unwrap().trim().to_owned()
    };
    assert_eq!(setting("tcp_timeout_close_wait"), "420");
    assert_eq!(setting("tcp_timeout_established"), "86400");
    assert_eq!(setting("tcp_be_liberal"), "1");

    let says = |word: &str| cluster.try_kproxy("n1", &["status", word]).status.code();
    assert_eq!((says("--ready"), says("--live")), (Some(0), Some(0)));
    cluster.proxies[0].stop().unwrap();
    assert_eq!((says("--ready"), says("--live")), (Some(1), Some(1)));
}

#[test]
fn policies_of_ipsec_are_told_with_the_remedy() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let n1 = lab.node("n1");
    let policy =
        ["xfrm", "policy", "add", "src", "198.51.100.0/24", "dst", "203.0.113.0/24", "dir"];
    let template = ["out", "tmpl", "src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp"];
    if n1.run("ip", &[&policy[..], &template[..], &["mode", "tunnel"]].concat()).is_err() {
        println!("this kernel has no IPsec");
        return;
    }
    let cluster = Cluster::in_lab(lab, &["n1/a"], json!({}), &[]);
    let problems = |node: &str| {
        let status = cluster.try_kproxy(node, &["status", "-o", "json"]).stdout;
        serde_json::from_slice::<Value>(&status).unwrap()["problems"].to_string()
    };
    cluster.wait("a problem of n1", || problems("n1").contains("XFRM interface"));
    assert!(!problems("n2").contains("XFRM"), "{}", problems("n2"));
}

#[test]
fn hcn_12_a_service_of_one_family_is_told_of_on_both() {
    let cluster = Cluster::new(&["n1/a"]);
    let port = 32_007;
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "four", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.44", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port, "ports": [{"port": 80, "nodePort": 30_444}],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "four-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "four"},
        },
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.244.1.77"], "nodeName": "n1"}],
    });
    cluster.write("four.yaml", [object, slice]);
    let client = cluster.lab.client();
    for family in Family::ALL {
        let to = cluster.lab.node("n1").at(family, port);
        let words = "\"localEndpoints\": 1";
        cluster.wait(&format!("{family:?}"), || ask(&client, to, "/").1.contains(words));
    }
}
