//! Kubernetes objects in, what is served out: fields of Services and EndpointSlices one by one
//! (SEL, SVC, EPS of the reference), through conversion, model and plan.

use serde_json::{Value, json};

use super::*;
use crate::control::planner::Planner;
use crate::model::Node;
use crate::plan::tests::{NODE, ip};
use crate::plan::{FrontendKind, Scope, Sources};
use crate::source::convert;

/// A planner that is fed objects as an API server sends them.
struct Cluster {
    planner: Planner,
}

impl Cluster {
    fn new() -> Self {
        let mut planner = Planner::new(NODE);
        for event in [Event::Node(Some(Node::default())), all_services([]), all_slices([])] {
            planner.handle(event);
        }
        Self { planner }
    }

    /// With the Service `web` and its slice of one ready endpoint on this node and one elsewhere.
    fn web() -> Self {
        let mut cluster = Self::new();
        cluster.service(&json!({}));
        cluster.slice(&json!({}));
        cluster
    }

    /// The Service `web` with these changes.
    fn service(&mut self, changes: &Value) -> Vec<String> {
        let mut object = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {
                "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "targetPort": 9}],
            },
        });
        merge(&mut object, changes);
        let object = serde_json::from_value(object).unwrap();
        self.planner.handle(Event::Services(Update::Apply(convert::service(&object))));
        self.served()
    }

    /// The slice `web-1` with these changes.
    fn slice(&mut self, changes: &Value) -> Vec<String> {
        let mut object = json!({
            "metadata": {
                "namespace": "default", "name": "web-1",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": NODE},
                {"addresses": ["10.0.0.2"], "nodeName": "elsewhere"},
            ],
        });
        merge(&mut object, changes);
        let object = serde_json::from_value(object).unwrap();
        self.planner.handle(Event::Slices(Update::Apply(convert::slice(&object))));
        self.served()
    }

    /// `frontend/protocol inside|outside -> backends`, sorted.
    fn served(&mut self) -> Vec<String> {
        self.planner.take_changes();
        let mut lines = Vec::new();
        for plan in self.planner.plans() {
            let text = |scope| {
                let set = match scope {
                    Scope::Cluster => &plan.cluster,
                    Scope::Local => plan.local.as_ref().unwrap(),
                };
                let of = |b: &crate::plan::Backend| format!("{}:{}", b.addr, b.port);
                match set.backends.as_slice() {
                    [] => format!("{:?}", set.when_empty),
                    backends => backends.iter().map(of).collect::<Vec<_>>().join(" "),
                }
            };
            for f in &plan.frontends {
                let (inside, outside) = (text(f.internal), text(f.external));
                let outside =
                    if inside == outside { String::new() } else { format!(" | {outside}") };
                let protocol = plan.id.protocol.name();
                let kind = if f.kind == FrontendKind::NodePort { "node" } else { "" };
                lines.push(format!("{kind}{}:{}/{protocol} {inside}{outside}", f.addr, f.port));
            }
        }
        lines.sort();
        lines
    }
}

/// Objects are merged, everything else is replaced; `null` removes.
fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (name, value) in changes {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (into, value) => into.clone_from(value),
    }
}

const BOTH: &str = "10.0.0.1:8080 10.0.0.2:8080";

fn plain() -> Vec<String> {
    vec![format!("10.96.0.10:80/TCP {BOTH}")]
}

#[test]
fn sel_01_to_07_a_living_service_comes_and_goes_with_its_fields() {
    let proxy = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": ""}}});
    for (id, changes) in [
        ("SEL-01 another proxy's", proxy),
        ("SEL-02 headless", json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}})),
        ("SEL-02 no address", json!({"spec": {"clusterIP": "", "clusterIPs": []}})),
        ("SEL-06 ExternalName", json!({"spec": {"type": "ExternalName"}})),
        ("SEL-05 no ports", json!({"spec": {"ports": []}})),
    ] {
        let mut cluster = Cluster::web();
        assert_eq!(cluster.served(), plain(), "{id}");
        assert_eq!(cluster.service(&changes), [""; 0], "{id}");
        assert_eq!(cluster.service(&json!({})), plain(), "{id}, and back");
    }
    // SEL-04: the slices of a living Service.
    let mut cluster = Cluster::web();
    let headless = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    assert_eq!(cluster.slice(&headless), ["10.96.0.10:80/TCP Reject"]);
    assert_eq!(cluster.slice(&json!({})), plain());
    // SEL-07: deleted and made anew with another address between two plans.
    let name = crate::model::ServiceName::new("default", "web");
    cluster.planner.handle(Event::Services(Update::Delete(name)));
    let spec = json!({"spec": {"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]}});
    assert_eq!(cluster.service(&spec), [format!("10.96.0.11:80/TCP {BOTH}")]);
}

#[test]
fn svc_03_04_05_09_15_16_17_fields_that_are_not_read_change_nothing() {
    for (id, changes) in [
        (
            "SVC-03 targetPort",
            json!({"spec": {"ports": [{"name": "http", "port": 80,
            "targetPort": "other"}]}}),
        ),
        (
            "SVC-04 appProtocol",
            json!({"spec": {"ports": [{"name": "http", "port": 80,
            "appProtocol": "kubernetes.io/h2c"}]}}),
        ),
        ("SVC-05 ipFamilyPolicy", json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})),
        (
            "SVC-09",
            json!({"spec": {"loadBalancerIP": "203.0.113.1", "loadBalancerClass": "a/b",
            "allocateLoadBalancerNodePorts": false}}),
        ),
        ("SVC-15", json!({"spec": {"publishNotReadyAddresses": true}})),
        ("SVC-16", json!({"spec": {"trafficDistribution": "PreferClose"}})),
        (
            "SVC-17",
            json!({"metadata": {"annotations": {"a": "b"}, "labels": {"app": "x"},
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]},
            "spec": {"selector": {"app": "y"}}}),
        ),
    ] {
        let mut cluster = Cluster::web();
        assert_eq!(cluster.service(&changes), plain(), "{id}");
        assert!(cluster.planner.problems().current().is_empty(), "{id}");
    }
}

#[test]
fn svc_02_06_07_08_every_kind_of_frontend_whatever_the_type() {
    let fields = json!({
        "spec": {
            "externalIPs": ["203.0.113.250", "2001:db8::1"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1", "ipMode": "VIP"}, {"ip": "198.51.100.2"},
            {"ip": "198.51.100.3", "ipMode": "Proxy"}, {"hostname": "lb.example.org"},
        ]}},
    });
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let mut changes = fields.clone();
        changes["spec"]["type"] = kind.into();
        let served = Cluster::web().service(&changes);
        let frontends: Vec<_> = served.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let wanted = [
            "10.96.0.10:80/TCP",
            "198.51.100.1:80/TCP",
            "198.51.100.2:80/TCP",
            "203.0.113.250:80/TCP",
            "node0.0.0.0:30080/TCP",
        ];
        assert_eq!(frontends, wanted, "{kind}");
    }
}

#[test]
fn svc_12_13_19_20_21_ver_13_policies_apply_to_their_own_frontends() {
    let here = "10.0.0.1:8080";
    for (id, spec, lines) in [
        (
            "VER-03",
            json!({"internalTrafficPolicy": "Local"}),
            vec![format!("10.96.0.10:80/TCP {here}")],
        ),
        (
            "VER-06, VER-13",
            json!({"type": "NodePort", "externalTrafficPolicy": "Local",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
            vec![
                format!("10.96.0.10:80/TCP {BOTH}"),
                format!("node0.0.0.0:30080/TCP {BOTH} | {here}"),
            ],
        ),
        (
            "VER-13, SVC-20",
            json!({"type": "NodePort", "internalTrafficPolicy": "Local",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
            vec![format!("10.96.0.10:80/TCP {here}"), format!("node0.0.0.0:30080/TCP {BOTH}")],
        ),
        (
            "SVC-12: ClusterIP with externalIPs",
            json!({"externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.1"]}),
            vec![
                format!("10.96.0.10:80/TCP {BOTH}"),
                format!("203.0.113.1:80/TCP {BOTH} | {here}"),
            ],
        ),
        ("SVC-12: nothing from outside", json!({"externalTrafficPolicy": "Local"}), plain()),
    ] {
        assert_eq!(Cluster::web().service(&json!({ "spec": spec })), lines, "{id}");
    }
    // Live toggles: what was Local is Cluster again.
    let mut cluster = Cluster::web();
    cluster.service(&json!({"spec": {"internalTrafficPolicy": "Local"}}));
    assert_eq!(cluster.service(&json!({})), plain());
}

#[test]
fn eps_02_03_04_05_06_10_14_19_20_fields_of_slices() {
    let line = |backends: &str| vec![format!("10.96.0.10:80/TCP {backends}")];
    for (id, changes, backends) in [
        (
            "EPS-02",
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]}),
            "Reject",
        ),
        ("EPS-02", json!({"addressType": "FQDN"}), "Reject"),
        ("EPS-03", json!({"ports": [{"name": "", "port": 8080}]}), "Reject"),
        ("EPS-04", json!({"ports": [{"name": "http"}]}), "Reject"),
        ("EPS-05", json!({"ports": [{"name": "http", "port": 8080}]}), BOTH),
        ("EPS-05", json!({"ports": [{"name": "http", "port": 8080, "protocol": "UDP"}]}), "Reject"),
        (
            "EPS-06",
            json!({"endpoints": [{"addresses": ["10.0.0.9", "10.0.0.8"]}]}),
            "10.0.0.9:8080",
        ),
        (
            "EPS-10",
            json!({"endpoints": [{"addresses": ["10.0.0.9"], "zone": "b", "hostname": "h",
            "targetRef": {"kind": "Pod", "name": "p"}}]}),
            "10.0.0.9:8080",
        ),
        (
            "EPS-13, EPS-14",
            json!({
                "ports": [{"name": "http", "port": 9}, {"name": "http", "port": 10}],
                "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}],
            }),
            "10.0.0.1:9 10.0.0.1:10 10.0.0.2:9 10.0.0.2:10",
        ),
        ("EPS-18", json!({"endpoints": [{"addresses": ["127.0.0.1"]}]}), "Reject"),
        (
            "EPS-19",
            json!({"endpoints": [{"addresses": ["192.0.2.10"], "nodeName": NODE}]}),
            "192.0.2.10:8080",
        ),
        (
            "EPS-20",
            json!({"metadata": {"annotations":
            {"endpoints.kubernetes.io/last-change-trigger-time": "yesterday"}}}),
            BOTH,
        ),
    ] {
        assert_eq!(Cluster::web().slice(&changes), line(backends), "{id}");
    }
}

#[test]
fn eps_11_12_15_slices_of_one_service_are_merged_and_taken_apart_again() {
    let mut cluster = Cluster::web();
    let second = json!({
        "metadata": {"name": "web-2"},
        "ports": [{"name": "http", "port": 8081}],
        "endpoints": [{"addresses": ["10.0.0.2"]}],
    });
    let merged = cluster.slice(&second);
    assert_eq!(merged, [format!("10.96.0.10:80/TCP {BOTH} 10.0.0.2:8081")], "EPS-12");
    let same = json!({"metadata": {"name": "web-3"}, "endpoints": [{"addresses": ["10.0.0.1"],
        "nodeName": NODE}]});
    assert_eq!(cluster.slice(&same), merged, "EPS-11: a duplicate");
    for gone in ["web-2", "web-3"] {
        let name = crate::model::SliceName::new("default", gone);
        cluster.planner.handle(Event::Slices(Update::Delete(name)));
    }
    assert_eq!(cluster.served(), plain(), "EPS-15");
    // The label moves the slice to another Service and back.
    let other = json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}});
    assert_eq!(cluster.slice(&other), ["10.96.0.10:80/TCP Reject"]);
    assert_eq!(cluster.slice(&json!({})), plain());
}

/// LBR-03: the node may dial what its own address opens to it, from when that is known.
#[test]
fn lbr_03_the_node_is_let_in_and_kept_out_as_its_addresses_change() {
    let restricted = json!({
        "spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    let mut cluster = Cluster::new();
    cluster.service(&restricted);
    let mut node_is_let_in = |node: Option<Node>| {
        cluster.planner.handle(Event::Node(node));
        cluster.planner.take_changes();
        let plans = cluster.planner.plans();
        let mut frontends = plans.iter().flat_map(|plan| &plan.frontends);
        let found = frontends.find(|frontend| frontend.addr == ip("203.0.113.1")).unwrap();
        found.sources == Sources::Ranges { node: true }
    };
    let node = |zone: Option<&str>, address: &str| {
        Some(Node {
            zone: zone.map(str::to_owned),
            addresses: vec![ip(address)],
            ..Node::default()
        })
    };
    assert!(!node_is_let_in(None), "nobody has said what its address is");
    assert!(node_is_let_in(node(None, "192.0.2.1")), "its Node has come late");
    assert!(!node_is_let_in(node(None, "198.51.100.1")), "it has another address");
    assert!(node_is_let_in(node(Some("a"), "192.0.2.1")), "address and zone are new");
    assert!(!node_is_let_in(node(Some("a"), "198.51.100.1")), "the zone is the same");
    assert!(!node_is_let_in(None), "its Node is gone");
}

#[test]
fn np_10_svc_01_ports_change_in_place() {
    let mut cluster = Cluster::web();
    let ports = |ports: Value| json!({"spec": {"type": "NodePort", "ports": ports}});
    let frontends = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let one = ports(json!([{"name": "http", "port": 80, "nodePort": 30080}]));
    let wanted = ["10.96.0.10:80/TCP", "node0.0.0.0:30080/TCP"];
    assert_eq!(frontends(cluster.service(&one)), wanted);
    let moved = ports(json!([{"name": "http", "port": 81, "nodePort": 30081}]));
    let wanted = ["10.96.0.10:81/TCP", "node0.0.0.0:30081/TCP"];
    assert_eq!(frontends(cluster.service(&moved)), wanted);
    let two = ports(json!([{"name": "http", "port": 53}, {"name": "dns", "port": 53,
        "protocol": "UDP"}, {"name": "sctp", "port": 53, "protocol": "SCTP"}]));
    let wanted = ["10.96.0.10:53/SCTP", "10.96.0.10:53/TCP", "10.96.0.10:53/UDP"];
    assert_eq!(frontends(cluster.service(&two)), wanted);
}
