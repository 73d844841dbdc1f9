use serde_json::{Value, json};

use super::*;
use crate::model::{Algorithm, Endpoint, Family, Service, ServiceType, Slice, TrafficPolicy};
use crate::source::{Parsed, Verdict, objects};

fn parse_service(spec: Value) -> Parsed<Service> {
    let object: objects::Service = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web"}, "spec": spec,
    }))
    .unwrap();
    service(&object)
}

/// A Service with one port and a cluster IP, and what `more` adds.
fn web(more: Value) -> Parsed<Service> {
    let mut spec = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse_service(spec)
}

fn used<T: crate::source::Object>(parsed: Parsed<T>) -> T {
    assert_eq!(parsed.problems, []);
    match parsed.verdict {
        Verdict::Use(value) => value,
        other => panic!("{other:?}"),
    }
}

/// The good rest of an object that has one problem.
fn mended<T: crate::source::Object>(parsed: Parsed<T>, word: &str) -> T {
    assert_eq!(parsed.problems.len(), 1, "{:?}", parsed.problems);
    assert!(parsed.problems[0].what.contains(word), "{}", parsed.problems[0]);
    match parsed.verdict {
        Verdict::Use(value) => value,
        other => panic!("{other:?}"),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn parse_slice(more: Value) -> Parsed<Slice> {
    let mut object = json!({
        "metadata": {
            "namespace": "default", "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.5"]}],
    });
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    slice(&serde_json::from_value::<objects::EndpointSlice>(object).unwrap())
}

fn endpoint(more: Value) -> Endpoint {
    let mut object = json!({"addresses": ["10.244.0.5"]});
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let parsed = parse_slice(json!({"endpoints": [object]}));
    assert_eq!(parsed.problems, []);
    let Verdict::Use(slice) = parsed.verdict else { panic!() };
    slice.endpoints.into_iter().next().unwrap()
}

#[test]
fn sel_01_another_proxys_services_are_ignored_whatever_the_label_says() {
    for value in ["other", ""] {
        let object: objects::Service = serde_json::from_value(json!({
            "metadata": {
                "namespace": "default", "name": "web",
                "labels": {"service.kubernetes.io/service-proxy-name": value},
            },
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
        }))
        .unwrap();
        assert_eq!(service(&object).verdict, Verdict::Ignore);
    }
}

#[test]
fn sel_02_headless_and_external_name_are_ignored_without_a_word() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "", "ports": [{"port": 80}]}),
        json!({"ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "clusterIP": "10.96.0.10", "ports": [{"port": 80}]}),
    ] {
        let parsed = parse_service(spec);
        assert_eq!((parsed.verdict, parsed.problems), (Verdict::Ignore, vec![]));
    }
}

#[test]
fn sel_03_each_family_has_its_cluster_ip() {
    let dual = used(web(json!({"clusterIPs": ["10.96.0.10", "fd00:10:96::a"]})));
    assert_eq!(dual.cluster_ip(Family::V4), Some(ip("10.96.0.10")));
    assert_eq!(dual.cluster_ip(Family::V6), Some(ip("fd00:10:96::a")));
    let old = used(web(json!({})));
    assert_eq!(old.cluster_ip(Family::V6), None);
}

#[test]
fn sel_04_slices_of_headless_services_are_ignored() {
    let parsed = parse_slice(json!({"metadata": {
        "namespace": "default", "name": "web-1",
        "labels": {"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""},
    }}));
    assert_eq!(parsed.verdict, Verdict::Ignore);
}

#[test]
fn sel_05_no_ports_no_service() {
    assert_eq!(web(json!({"ports": []})).verdict, Verdict::Ignore);
}

#[test]
fn svc_01_same_number_with_two_protocols_is_two_ports() {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns", "port": 53, "protocol": "TCP"},
        {"name": "sctp", "port": 53, "protocol": "SCTP"},
    ]);
    assert_eq!(used(web(json!({ "ports": ports }))).ports.len(), 3);
}

#[test]
fn svc_02_node_ports_count_whatever_the_type() {
    let service = used(web(json!({"ports": [{"port": 80, "nodePort": 30080}]})));
    assert_eq!(service.kind, ServiceType::ClusterIp);
    assert_eq!(service.ports[0].node_port.unwrap().get(), 30080);
}

#[test]
fn svc_07_only_virtual_load_balancer_addresses_are_taken() {
    let object: objects::Service = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.1"},
            {"ip": "192.0.2.2", "ipMode": "VIP"},
            {"ip": "192.0.2.3", "ipMode": "Proxy"},
            {"hostname": "lb.example"},
            {"ip": ""},
        ]}},
    }))
    .unwrap();
    let service = used(service(&object));
    assert_eq!(service.load_balancer_ips, [ip("192.0.2.1"), ip("192.0.2.2")]);
}

#[test]
fn svc_10_source_ranges_are_trimmed_and_kept_by_family() {
    let service =
        used(web(json!({"loadBalancerSourceRanges": ["192.168.0.0/24", " 203.0.113.0/25"]})));
    assert_eq!(service.source_ranges.len(), 2);
    assert!(service.restricts_sources(Family::V4));
    // LBR-08
    assert!(!service.restricts_sources(Family::V6));
    let open = used(web(json!({"loadBalancerSourceRanges": ["192.168.0.0/24", "0.0.0.0/0"]})));
    assert!(!open.restricts_sources(Family::V4));
}

#[test]
fn svc_10_unreadable_ranges_do_not_open_the_service() {
    let object: objects::Service = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": [{"port": 80}],
            "loadBalancerSourceRanges": ["192.168.0.0/33"],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    }))
    .unwrap();
    let closed = mended(service(&object), "192.168.0.0/33");
    assert_eq!(closed.load_balancer_ips, Vec::<IpAddr>::new());
    // Neither does a good range of the other family.
    let mut object = object;
    let good = "2001:db8::/32".to_owned();
    object.spec.as_mut().unwrap().load_balancer_source_ranges.as_mut().unwrap().push(good);
    let closed = mended(service(&object), "192.168.0.0/33");
    assert_eq!(closed.load_balancer_ips, Vec::<IpAddr>::new());
}

#[test]
fn node_02_the_first_address_of_each_family_internal_before_external() {
    let object: objects::Node = serde_json::from_value(json!({
        "status": {"addresses": [
            {"type": "Hostname", "address": "n1"},
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "ExternalIP", "address": "2001:db8::1"},
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "192.0.2.2"},
        ]},
    }))
    .unwrap();
    assert_eq!(node(&object).addresses, [ip("192.0.2.1"), ip("2001:db8::1")]);
}

#[test]
fn svc_11_affinity_has_the_default_timeout_and_its_bounds() {
    assert_eq!(used(web(json!({}))).affinity_seconds, None);
    let client_ip = |seconds: Value| {
        web(json!({
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
        }))
    };
    assert_eq!(used(client_ip(Value::Null)).affinity_seconds, Some(10_800));
    assert_eq!(used(client_ip(json!(30))).affinity_seconds, Some(30));
    assert_eq!(mended(client_ip(json!(0)), "out of range").affinity_seconds, Some(1));
}

#[test]
fn the_algorithm_is_an_annotation_and_a_bad_one_is_reported() {
    let annotated = |annotations: Value| {
        let object = json!({
            "metadata": {"namespace": "default", "name": "web", "annotations": annotations},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
        });
        service(&serde_json::from_value(object).unwrap())
    };
    for (annotations, algorithm) in [
        (json!({}), None),
        (json!({"other/lb-algorithm": "random"}), None),
        (json!({"kproxy.dev/lb-algorithm": "round-robin"}), Some(Algorithm::RoundRobin)),
        (json!({"kproxy.dev/lb-algorithm": "random"}), Some(Algorithm::Random)),
        (
            json!({"kproxy.dev/lb-algorithm": "least-connections"}),
            Some(Algorithm::LeastConnections),
        ),
        (json!({"kproxy.dev/lb-algorithm": "maglev"}), Some(Algorithm::Maglev)),
    ] {
        assert_eq!(used(annotated(annotations.clone())).algorithm, algorithm, "{annotations}");
    }
    for bad in ["", "Maglev", "maglev ", "round_robin", "least-conn", "ip-hash", "true"] {
        let parsed = annotated(json!({"kproxy.dev/lb-algorithm": bad}));
        assert_eq!(parsed.problems[0].object, "Service default/web");
        let service = mended(parsed, &format!("lb-algorithm {bad:?} is unknown"));
        assert_eq!(service.algorithm, None, "the default applies");
    }
}

#[test]
fn svc_12_local_needs_external_access() {
    let local = json!({"externalTrafficPolicy": "Local"});
    assert_eq!(used(web(local.clone())).external_policy(), TrafficPolicy::Cluster);
    for more in [
        json!({"type": "NodePort"}),
        json!({"type": "LoadBalancer", "healthCheckNodePort": 32000}),
        json!({"externalIPs": ["192.0.2.1"]}),
    ] {
        let mut spec = local.clone();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(used(web(spec)).external_policy(), TrafficPolicy::Local, "{more}");
    }
}

#[test]
fn svc_18_leading_zeros_are_decimal() {
    for (text, meant) in [
        ("172.030.099.080", "172.30.99.80"),
        ("000.0.0.010", "0.0.0.10"),
        ("10.96.0.1", "10.96.0.1"),
        ("fd00:00010:096::00a", "fd00:10:96::a"),
        ("::ffff:192.000.002.001", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("0::1", "::1"),
    ] {
        assert_eq!(parse_ip(text), Some(ip(meant)), "{text}");
    }
    for text in ["", "10.96.0", "10.96.0.256", "10.96.0.1 ", "fe80::1%eth0", "web", "1:2", "..."] {
        assert_eq!(parse_ip(text), None, "{text}");
    }
    assert_eq!(parse_cidr(" 010.001.000.000/08").unwrap().to_string(), "10.0.0.0/8");
}

#[test]
fn bad_parts_of_a_service_leave_the_good_ones() {
    let ports = |bad: Value| json!({"ports": [{"name": "ok", "port": 80}, bad]});
    for (more, word) in [
        (ports(json!({"name": "zero", "port": 0})), "number 0"),
        (ports(json!({"name": "big", "port": 65536})), "number 65536"),
        (ports(json!({"name": "odd", "port": 81, "protocol": "DCCP"})), "DCCP"),
        (ports(json!({"name": "ok", "port": 81})), "twice"),
        (json!({"externalIPs": ["not-an-ip"]}), "not-an-ip"),
        (json!({"externalIPs": ["127.0.0.1"]}), "loopback"),
        (json!({"externalIPs": ["0.0.0.0"]}), "unspecified"),
        (json!({"externalIPs": ["::ffff:127.0.0.1"]}), "loopback"),
        (json!({"clusterIPs": ["10.96.0.10", "fd00::x"]}), "fd00::x"),
        (json!({"sessionAffinity": "Cookie"}), "Cookie"),
        (json!({"externalTrafficPolicy": "Near"}), "Near"),
        (json!({"type": "Magic"}), "Magic"),
    ] {
        let service = mended(web(more), word);
        assert_eq!(service.ports.len(), 1);
        assert_eq!(service.cluster_ips, [ip("10.96.0.10")]);
        assert!(service.external_ips.is_empty());
    }
    let node_port = web(json!({"ports": [{"port": 80, "nodePort": 70000}]}));
    assert_eq!(mended(node_port, "nodePort 70000").ports[0].node_port, None);
}

#[test]
fn a_service_without_any_good_part_is_reported_and_ignored() {
    for more in [json!({"clusterIP": "10.96.0"}), json!({"ports": [{"port": 0}]})] {
        let parsed = web(more);
        assert_eq!(parsed.verdict, Verdict::Ignore);
        assert_eq!(parsed.problems.len(), 1);
        assert_eq!(parsed.problems[0].object, "Service default/web");
    }
}

#[test]
fn eps_01_and_02_slices_without_a_service_are_others_and_those_without_a_family_reported() {
    for labels in [json!({}), json!({"kubernetes.io/service-name": ""})] {
        let metadata = json!({"namespace": "default", "name": "web-1", "labels": labels});
        let nameless = parse_slice(json!({"metadata": metadata, "addressType": "FQDN"}));
        assert_eq!((nameless.verdict, nameless.problems), (Verdict::Ignore, vec![]));
    }
    let fqdn = parse_slice(json!({"addressType": "FQDN"}));
    assert_eq!(fqdn.verdict, Verdict::Ignore);
    assert!(fqdn.problems[0].what.contains("FQDN"));
}

#[test]
fn eps_03_to_05_bad_slice_ports_leave_the_good_ones() {
    for (bad, word) in [
        (json!({"port": 80}), "without a name"),
        (json!({"name": "none"}), "no number"),
        (json!({"name": "zero", "port": 0}), "number 0"),
        (json!({"name": "odd", "port": 80, "protocol": "DCCP"}), "DCCP"),
    ] {
        let slice = mended(parse_slice(json!({"ports": [bad, {"name": "", "port": 80}]})), word);
        assert_eq!(slice.ports.len(), 1);
        assert_eq!(slice.ports[0].name, "");
        assert_eq!(slice.ports[0].protocol, Protocol::Tcp);
    }
}

#[test]
fn eps_06_07_18_bad_endpoints_leave_the_good_ones() {
    for (bad, word) in [
        (json!([]), "without an address"),
        (json!(["pod-1"]), "pod-1"),
        (json!(["127.0.0.1"]), "loopback"),
        (json!(["0.0.0.0"]), "unspecified"),
        (json!(["224.0.0.1"]), "multicast"),
        (json!(["fd00::1"]), "no IPv4"),
        (json!(["300.0.0.1"]), "300.0.0.1"),
    ] {
        let endpoints = json!([{ "addresses": bad }, {"addresses": ["10.244.0.005", "10.9.9.9"]}]);
        let slice = mended(parse_slice(json!({ "endpoints": endpoints })), word);
        assert_eq!(slice.endpoints.len(), 1);
        assert_eq!(slice.endpoints[0].addr, ip("10.244.0.5"));
    }
}

#[test]
fn eps_07_conditions_have_their_defaults() {
    let unknown = endpoint(json!({}));
    assert!(unknown.ready && unknown.serving && !unknown.terminating);
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    assert!(endpoint(json!({ "conditions": draining })).is_serving_terminating());
}

#[test]
fn eps_09_hints_are_sets_of_names() {
    let hinted = endpoint(json!({
        "nodeName": "node-a",
        "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node-a"}]},
    }));
    assert_eq!(hinted.node.as_deref(), Some("node-a"));
    assert_eq!(hinted.zone_hints.len(), 2);
    assert_eq!(&*hinted.node_hints[0], "node-a");
    assert!(endpoint(json!({"hints": {"forZones": []}})).zone_hints.is_empty());
}

#[test]
fn node_04_the_zone_is_the_label_unless_empty() {
    for (labels, zone) in [
        (json!({"topology.kubernetes.io/zone": "a"}), Some("a")),
        (json!({"topology.kubernetes.io/zone": ""}), None),
        (json!({}), None),
    ] {
        let object = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
        assert_eq!(node(&object).zone.as_deref(), zone);
    }
}

#[test]
fn hz_06_a_node_leaves_that_is_deleted_or_about_to_be() {
    for (object, leaving) in [
        (json!({}), false),
        (json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}), true),
        (
            json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}),
            true,
        ),
        (
            json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready"}], "unschedulable": true}}),
            false,
        ),
        (json!({"metadata": {"deletionTimestamp": null}, "spec": {"taints": null}}), false),
    ] {
        let found = node(&serde_json::from_value(object.clone()).unwrap()).leaving;
        assert_eq!(found, leaving, "{object}");
    }
}

#[test]
fn node_02_the_first_internal_address_is_the_primary_one() {
    for (written, chosen) in [
        (&["InternalIP 192.0.2.1", "InternalIP 192.0.2.2"][..], &["192.0.2.1"][..]),
        (&["ExternalIP 203.0.113.1", "InternalIP 192.0.2.1"], &["192.0.2.1"]),
        (&["Hostname 192.0.2.9", "ExternalIP 203.0.113.1"], &["203.0.113.1"]),
        (
            &["InternalIP fd00::1", "ExternalIP 203.0.113.1", "InternalIP fd00::2"],
            &["fd00::1", "203.0.113.1"],
        ),
        (&["InternalIP 192.0.2.010", "InternalIP ::1"], &["192.0.2.10", "::1"]),
        (&["InternalIP none"], &[]),
        (&[], &[]),
    ] {
        let addresses: Vec<_> = written
            .iter()
            .map(|text| text.split_once(' ').unwrap())
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        let object = json!({"metadata": {}, "status": {"addresses": addresses}});
        let found = node(&serde_json::from_value(object).unwrap()).addresses;
        assert_eq!(found, chosen.iter().map(|text| ip(text)).collect::<Vec<_>>(), "{written:?}");
    }
}

#[test]
fn svc_14_health_checks_are_for_load_balancers_with_policy_local() {
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 32000});
    let with = |more: Value| {
        let mut spec = local.clone();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        web(spec)
    };
    let port = |parsed: Parsed<Service>| used(parsed).health_check_port().map(NonZeroU16::get);
    assert_eq!(port(with(json!({}))), Some(32000));
    assert_eq!(port(with(json!({"type": "NodePort"}))), None);
    assert_eq!(port(with(json!({"externalTrafficPolicy": "Cluster"}))), None);
    let without = mended(with(json!({"healthCheckNodePort": 0})), "no healthCheckNodePort");
    assert_eq!(without.health_check_port(), None);
    let parsed = with(json!({"healthCheckNodePort": 70000}));
    assert!(parsed.problems[0].what.contains("70000"), "{:?}", parsed.problems);
}

#[test]
fn ver_19_a_service_says_when_it_was_made() {
    let object = serde_json::from_value(json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:01Z"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
    }));
    assert_eq!(used(service(&object.unwrap())).created, Some(1_767_225_601));
}

#[test]
fn node_08_service_cidrs_keep_their_good_ranges() {
    let parse = |cidrs: Value| {
        let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        service_cidr(&serde_json::from_value(object).unwrap())
    };
    let good = parse(json!(["10.96.0.0/16", "fd00:10:96::/112"]));
    assert_eq!(good.problems, []);
    for (bad, word) in [("10.96.0.0", "no range"), ("0.0.0.0/0", "every address")] {
        let ranges = mended(parse(json!([bad, "fd00:10:96::/112"])), word).ranges;
        assert_eq!(ranges, ["fd00:10:96::/112".parse().unwrap()]);
    }
}

#[test]
fn eps_20_a_slice_says_when_its_pods_changed() {
    let parse = |annotations: Value| {
        parse_slice(json!({"metadata": {
            "namespace": "default", "name": "web-1", "annotations": annotations,
            "labels": {"kubernetes.io/service-name": "web"},
        }}))
    };
    let with =
        |time: &str| parse(json!({"endpoints.kubernetes.io/last-change-trigger-time": time}));
    assert_eq!(used(parse(json!({"other": "x"}))).triggered, None);
    for text in
        ["2026-01-01T00:00:01Z", "2026-01-01T00:00:01.000000999Z", "2026-01-01T01:00:01+01:00"]
    {
        assert_eq!(used(with(text)).triggered, Some(1_767_225_601_000_000), "{text}");
    }
    for bad in ["", "yesterday", "2026-13-01T00:00:01Z"] {
        let mended = mended(with(bad), "is no time");
        assert_eq!((mended.triggered, mended.endpoints.len()), (None, 1));
    }
}

#[test]
fn a_pod_counts_while_it_has_a_network_namespace_of_its_own() {
    let parse = |spec: Value, status: Value| {
        let object: objects::Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "mesh", "name": "web-1"}, "spec": spec, "status": status,
        }))
        .unwrap();
        pod(&object)
    };
    let spec = |host: bool| json!({"containers": [], "nodeName": "n1", "hostNetwork": host});
    let status = |phase: &str| {
        json!({"phase": phase, "podIP": "10.244.1.5",
            "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}]})
    };
    for (phase, counts) in
        [("Running", true), ("Pending", true), ("Succeeded", false), ("Failed", false)]
    {
        // The podIP of a pod with hostNetwork is the node's.
        assert_eq!(parse(spec(true), status(phase)).verdict, Verdict::Ignore);
        match parse(spec(false), status(phase)).verdict {
            Verdict::Use(pod) if counts => {
                let addresses = ["10.244.1.5", "fd00::5"].map(|text| parse_ip(text).unwrap());
                assert_eq!((pod.addresses, pod.node.as_deref()), (addresses.into(), Some("n1")));
            }
            verdict => assert_eq!((verdict, counts), (Verdict::Ignore, false), "{phase}"),
        }
    }
    let starting = mended(parse(Value::Null, json!({"podIP": "127.0.0.1"})), "127.0.0.1");
    assert_eq!((starting.addresses.len(), starting.node), (0, None));
}
