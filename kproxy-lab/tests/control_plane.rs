//! The real API server and the real kube-proxy in a lab.

use std::net::SocketAddr;
use std::time::Duration;

use kproxy_lab::manifest::{Service, slices};
use kproxy_lab::{Family, Lab, Mode, Outcome, POD_PORT, Probe, ProxySpec};
use serde_json::{Value, json};

/// A Service of type NodePort with one pod on each node behind it; its ClusterIPs.
fn web(lab: &Lab) -> Vec<SocketAddr> {
    let api = lab.control().unwrap().api();
    let service = Service::new("web").of_type("NodePort").port("http", "TCP", 80, POD_PORT);
    let service = api.apply_object(service.node_port(30_080)).unwrap();
    for slice in slices("web", "http", "TCP", POD_PORT, &[&lab.pod("n1", "a"), &lab.pod("n2", "a")])
    {
        api.apply_object(slice).unwrap();
    }
    let ips = service["spec"]["clusterIPs"].as_array().unwrap();
    ips.iter().map(|ip| SocketAddr::new(ip.as_str().unwrap().parse().unwrap(), 80)).collect()
}

#[test]
fn kube_proxy_makes_cluster_ips_and_node_ports_answer() {
    let lab = Lab::builder().nodes(2).pods(&["a"]).build().unwrap();
    lab.start_control_plane().unwrap();
    let cluster_ips = web(&lab);
    assert_eq!(cluster_ips.len(), 2);
    for mode in [Mode::Nftables, Mode::Iptables] {
        let proxies = lab.start_proxies(ProxySpec::kube_proxy(mode)).unwrap();
        let node_ports = Family::ALL.map(|family| lab.node("n1").at(family, 30_080));
        let asked = cluster_ips.iter().map(|to| (lab.pod("n1", "a"), *to));
        for (client, to) in asked.chain(node_ports.map(|to| (lab.client(), to))) {
            let outcome = client.probe(Probe::tcp(to).count(30)).unwrap();
            assert!(outcome.all_answered(), "{mode:?} {} to {to}: {outcome}", client.name());
            assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{mode:?} {to}");
        }
        for proxy in proxies {
            proxy.remove().unwrap();
        }
        let to = cluster_ips[0];
        let probe = Probe::tcp(to).timeout(Duration::from_millis(300));
        let outcome = lab.pod("n1", "a").probe(probe).unwrap();
        assert_eq!(outcome.answered(), 0, "{mode:?} left something behind: {outcome}");
    }
}

#[test]
fn changes_reach_kube_proxy_and_an_api_server_may_come_back() {
    let lab = Lab::builder().nodes(2).pods(&["a"]).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let (api, to) = (control.api(), web(&lab)[0]);
    let proxy = lab.start_proxy("n1", ProxySpec::kube_proxy(Mode::Nftables)).unwrap();
    let client = lab.pod("n1", "a");
    api.patch("EndpointSlice", "default", "web-v4", json!({"endpoints": []})).unwrap();
    client.probe_until(&Probe::tcp(to), Outcome::all_refused).unwrap();

    control.stop_api_server().unwrap();
    assert!(api.list("Service", "").is_err());
    assert!(proxy.is_running());
    control.start_api_server().unwrap();
    let [v4, _] = slices("web", "http", "TCP", POD_PORT, &[&lab.pod("n2", "a")]);
    api.apply_object(v4).unwrap();
    let answers = |outcome: &Outcome| outcome.servers() == [("n2/a", 1)].into();
    client.probe_until(&Probe::tcp(to), answers).unwrap();
    proxy.kill().unwrap();
}

#[test]
fn objects_are_applied_patched_listed_and_deleted() {
    let lab = Lab::builder().nodes(2).pods(&[]).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    assert!(lab.start_control_plane().is_err());
    let names = |objects: Vec<Value>| -> Vec<String> {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        objects.iter().map(name).collect()
    };
    assert_eq!(names(api.list("Node", "").unwrap()), ["n1", "n2"]);
    assert_eq!(names(api.list("Service", "default").unwrap()), ["kubernetes"]);
    let node = api.get("Node", "", "n1").unwrap().unwrap();
    assert_eq!(node["status"]["addresses"][0]["address"], "172.18.0.11");

    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: lb, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.7}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: default}
";
    let applied = api.apply(yaml).unwrap();
    assert_eq!(applied[0]["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.7");
    assert_eq!(applied.len(), 2);
    let change = json!({"spec": {"externalTrafficPolicy": "Local"}});
    let changed = api.patch("Service", "default", "lb", change).unwrap();
    assert_eq!(changed["spec"]["externalTrafficPolicy"], "Local");
    api.delete_all(yaml).unwrap();
    assert_eq!(api.get("Service", "default", "lb").unwrap(), None);
    let error = format!("{:#}", api.delete("Service", "default", "lb").unwrap_err());
    assert!(error.contains("delete Service default/lb"), "{error}");
    let error = format!("{:#}", api.apply("apiVersion: v1\nkind: Service\n").unwrap_err());
    assert!(error.contains("metadata.name"), "{error}");
}

#[test]
fn the_service_account_of_kproxy_may_read_and_nothing_else() {
    let lab = Lab::builder().pods(&[]).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let kproxy = control.client(control.kproxy_kubeconfig()).unwrap();
    for kind in ["Service", "EndpointSlice", "Node", "networking.k8s.io/v1/ServiceCIDR"] {
        assert!(!kproxy.list(kind, "").unwrap().is_empty(), "{kind}");
    }
    for refused in [kproxy.list("v1/Secret", "").map(drop), kproxy.delete("Node", "", "n1")] {
        let error = format!("{:#}", refused.unwrap_err());
        assert!(error.contains("forbidden") && error.contains("kproxy-lab"), "{error}");
    }
}
