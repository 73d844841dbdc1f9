//! Objects as no API server would accept them: converting one never panics, every part that is
//! used is valid, and what is left out is reported.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;
use crate::model::Family;
use crate::source::{Verdict, objects};

/// Addresses and ranges, good ones and others.
const ADDRESSES: [&str; 24] = [
    "10.96.0.10",
    "10.96.0.11",
    "fd00:10:96::a",
    "::ffff:10.96.0.12",
    "010.096.000.013",
    "10.96.0",
    "None",
    "",
    "0.0.0.0",
    "::",
    "127.0.0.1",
    "::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "10.96.0.0/16",
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/33",
    " 192.0.2.0/24 ",
    "fd00::/129",
    "/",
    "300.1.1.1",
    "fe80::1%eth0",
];
/// Words of every field that holds one.
const WORDS: [&str; 22] = [
    "",
    "TCP",
    "UDP",
    "SCTP",
    "tcp",
    "ClusterIP",
    "NodePort",
    "LoadBalancer",
    "ExternalName",
    "Cluster",
    "Local",
    "ClientIP",
    "None",
    "VIP",
    "Proxy",
    "IPv4",
    "IPv6",
    "FQDN",
    "http",
    "web",
    "maglev",
    "\u{0}\u{1f4a9}",
];

fn address() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(&ADDRESSES[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(&WORDS[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![
        3 => 1..40_000i32,
        1 => any::<i32>(),
        1 => select(&[0, -1, 65_535, 65_536, 86_400, 86_401, i32::MIN, i32::MAX][..]),
    ]
}

fn text() -> BoxedStrategy<Value> {
    word().prop_map(Value::from).boxed()
}

fn int() -> BoxedStrategy<Value> {
    number().prop_map(Value::from).boxed()
}

fn addr() -> BoxedStrategy<Value> {
    address().prop_map(Value::from).boxed()
}

fn flag() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::from).boxed()
}

fn list(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    vec(of, 0..4).prop_map(Value::from).boxed()
}

/// An object of which each field is there, missing, or (seldom) of another type.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let odd = prop_oneof![Just(Value::Null), Just(json!([])), Just(json!({})), text(), int()];
    let odd = odd.boxed();
    let field = |(name, value): (&'static str, BoxedStrategy<Value>)| {
        let value = prop_oneof![160 => value, 2 => odd.clone()];
        option::weighted(0.85, value)
            .prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    };
    let fields: Vec<_> = fields.into_iter().map(field).collect();
    fields.prop_map(|fields| fields.into_iter().flatten().collect::<Map<_, _>>().into()).boxed()
}

fn metadata(labels: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
    let time = prop_oneof![Just(json!("2026-01-01T00:00:00Z")), text()].boxed();
    object(vec![
        ("namespace", text()),
        ("name", text()),
        ("creationTimestamp", time.clone()),
        ("labels", object(labels)),
        ("annotations", object(vec![("kproxy.dev/lb-algorithm", text()), (TRIGGER, time)])),
    ])
}

fn any_service() -> BoxedStrategy<Value> {
    let port =
        object(vec![("name", text()), ("port", int()), ("nodePort", int()), ("protocol", text())]);
    let client_ip = object(vec![("timeoutSeconds", int())]);
    let ingress = object(vec![("ip", addr()), ("ipMode", text()), ("hostname", text())]);
    let spec = object(vec![
        ("clusterIP", addr()),
        ("clusterIPs", list(addr())),
        ("externalIPs", list(addr())),
        ("loadBalancerSourceRanges", list(addr())),
        ("type", text()),
        ("ports", list(port)),
        ("internalTrafficPolicy", text()),
        ("externalTrafficPolicy", text()),
        ("healthCheckNodePort", int()),
        ("sessionAffinity", text()),
        ("sessionAffinityConfig", object(vec![("clientIP", client_ip)])),
    ]);
    let status = object(vec![("loadBalancer", object(vec![("ingress", list(ingress))]))]);
    let labels = vec![("app", text())];
    object(vec![("metadata", metadata(labels)), ("spec", spec), ("status", status)])
}

fn any_slice() -> BoxedStrategy<Value> {
    let port = object(vec![("name", text()), ("port", int()), ("protocol", text())]);
    let name = || list(object(vec![("name", text())]));
    let endpoint = object(vec![
        ("addresses", list(addr())),
        (
            "conditions",
            object(vec![("ready", flag()), ("serving", flag()), ("terminating", flag())]),
        ),
        ("nodeName", text()),
        ("hints", object(vec![("forZones", name()), ("forNodes", name())])),
    ]);
    object(vec![
        ("metadata", metadata(vec![("kubernetes.io/service-name", text())])),
        ("addressType", select(&["IPv4", "IPv6", "FQDN"][..]).prop_map(Value::from).boxed()),
        ("ports", list(port)),
        ("endpoints", list(endpoint)),
    ])
}

fn any_other() -> BoxedStrategy<Value> {
    let spec = object(vec![("cidrs", list(addr())), ("podCIDRs", list(addr()))]);
    let addresses = list(object(vec![("type", text()), ("address", addr())]));
    let labels = vec![("topology.kubernetes.io/zone", text())];
    let status = object(vec![("addresses", addresses), ("conditions", list(object(vec![])))]);
    object(vec![("metadata", metadata(labels)), ("spec", spec), ("status", status)])
}

fn any_pod() -> BoxedStrategy<Value> {
    let spec = object(vec![
        ("nodeName", text()),
        ("hostNetwork", flag()),
        ("containers", list(object(vec![]))),
    ]);
    let ips = list(object(vec![("ip", addr())]));
    let phase = select(&["Pending", "Running", "Succeeded", "Failed"][..]).prop_map(Value::from);
    let status = object(vec![("podIP", addr()), ("podIPs", ips), ("phase", phase.boxed())]);
    object(vec![("metadata", metadata(vec![])), ("spec", spec), ("status", status)])
}

/// Parts that are written.
fn written(object: &Value, path: &str) -> usize {
    object.pointer(path).and_then(Value::as_array).map_or(0, Vec::len)
}

proptest! {
    #[test]
    fn any_service_is_used_as_far_as_it_is_valid(value in any_service()) {
        let Ok(object) = serde_json::from_value::<objects::Service>(value.clone()) else { return Ok(()) };
        let parsed = service(&object);
        let Verdict::Use(used) = &parsed.verdict else { return Ok(()) };
        prop_assert!(!used.cluster_ips.is_empty() && !used.ports.is_empty());
        let ips = used.cluster_ips.iter().chain(&used.external_ips).chain(&used.load_balancer_ips);
        prop_assert!(ips.clone().all(|ip| unusable(ip).is_none()), "{used:?}");
        prop_assert!(used.affinity_seconds.is_none_or(|seconds| (1..=86_400).contains(&seconds)));
        let left_out = written(&value, "/spec/ports") > used.ports.len()
            || written(&value, "/spec/externalIPs") > used.external_ips.len()
            || written(&value, "/spec/loadBalancerSourceRanges") > used.source_ranges.len();
        prop_assert!(!left_out || !parsed.problems.is_empty(), "{used:?}");
    }

    #[test]
    fn any_slice_is_used_as_far_as_it_is_valid(value in any_slice()) {
        let Ok(object) = serde_json::from_value::<objects::EndpointSlice>(value.clone()) else {
            return Ok(());
        };
        let parsed = slice(&object);
        let Verdict::Use(used) = &parsed.verdict else { return Ok(()) };
        for endpoint in &used.endpoints {
            let addr = endpoint.addr;
            prop_assert!(Family::of(&addr) == used.family && unusable(&addr).is_none(), "{addr}");
        }
        let left_out = written(&value, "/ports") > used.ports.len()
            || written(&value, "/endpoints") > used.endpoints.len();
        prop_assert!(!left_out || !parsed.problems.is_empty(), "{used:?}");
    }

    #[test]
    fn any_pod_is_used_as_far_as_it_is_valid(value in any_pod()) {
        let Ok(object) = serde_json::from_value::<objects::Pod>(value.clone()) else { return Ok(()) };
        let parsed = pod(&object);
        let Verdict::Use(used) = &parsed.verdict else { return Ok(()) };
        prop_assert_ne!(value.pointer("/spec/hostNetwork"), Some(&json!(true)));
        prop_assert!(used.addresses.iter().all(|ip| unusable(ip).is_none()), "{used:?}");
        prop_assert_ne!(&used.node, &Some(String::new()));
    }

    #[test]
    fn any_node_and_range_is_read(value in any_other()) {
        if let Ok(object) = serde_json::from_value::<objects::Node>(value.clone()) {
            node(&object);
        }
        if let Ok(object) = serde_json::from_value::<objects::ServiceCIDR>(value) {
            service_cidr(&object);
        }
    }

    /// Go's lenient form is read, and nothing else is made an address.
    #[test]
    fn any_text_is_an_address_or_none(text in "[0-9a-f:./ ]{0,24}|\\PC*") {
        if let Some(ip) = parse_ip(&text) {
            prop_assert_eq!(parse_ip(&ip.to_string()), Some(ip));
        }
        if let Some(net) = parse_cidr(&text) {
            prop_assert_eq!(parse_cidr(&net.to_string()), Some(net));
            prop_assert_eq!(net.trunc(), net);
        }
    }

    #[test]
    fn every_address_is_read_with_leading_zeros(bytes in any::<[u8; 4]>(), zeros in 0..3usize) {
        let zeros = "0".repeat(zeros);
        let text = bytes.map(|byte| format!("{zeros}{byte}")).join(".");
        prop_assert_eq!(parse_ip(&text), Some(bytes.into()));
    }
}
