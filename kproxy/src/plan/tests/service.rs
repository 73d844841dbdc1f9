//! What one Service becomes.

use super::*;
use crate::plan::{Frontend, FrontendKind, check_service};

/// What the programs sort a backend by.
fn slot_order(backend: &crate::plan::Backend) -> [u64; 3] {
    use kproxy_common::{net::Port, service::Slot};
    let (addr, port) = (backend.addr.into(), Port::new(backend.port));
    Slot { addr, port, ..Slot::default() }.order()
}

fn frontends(plans: &[ServicePortPlan]) -> Vec<(FrontendKind, IpAddr)> {
    plans.iter().flat_map(|plan| &plan.frontends).map(|f| (f.kind, f.addr)).collect()
}

#[test]
fn a_service_that_does_not_say_is_picked_from_as_the_node_does_it() {
    for (written, default, wanted) in [
        (None, Algorithm::RoundRobin, Algorithm::RoundRobin),
        (None, Algorithm::Maglev, Algorithm::Maglev),
        (Some(Algorithm::RoundRobin), Algorithm::Maglev, Algorithm::RoundRobin),
        (Some(Algorithm::LeastConnections), Algorithm::Random, Algorithm::LeastConnections),
    ] {
        let mut web = service("web", &["10.96.0.1", "fd00:10:96::1"]);
        web.algorithm = written;
        let none = BTreeSet::new();
        let context = PlanContext {
            node_name: NODE,
            zone: None,
            local_addresses: &none,
            node_addresses: &[],
            algorithm: default,
        };
        let plans = plan_service(&web, [].iter(), &context);
        assert_eq!(plans.iter().map(|plan| plan.algorithm).collect::<Vec<_>>(), [wanted; 2]);
    }
}

#[test]
fn sel_03_a_family_without_a_cluster_ip_has_no_plan() {
    let mut web = service("web", &["10.96.0.1"]);
    web.external_ips = vec![ip("2001:db8::1")];
    web.ports[0].node_port = Some(number(30080));
    let plans = plan(&web, &[]);
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0].id.family, Family::V4);
    assert_eq!(plans[0].frontends.len(), 2);
}

#[test]
fn svc_12_local_without_external_access_is_cluster() {
    let mut web = service("web", &["10.96.0.1"]);
    web.external_policy_written = TrafficPolicy::Local;
    web.ports[0].node_port = Some(number(30080));
    let plans = plan(&web, &[slice("s", "web", 80, &[endpoint("10.0.0.1", "RM")])]);
    assert_eq!(plans[0].local, None);
    assert_eq!(plans[0].cluster.backends.len(), 1);
}

#[test]
fn eps_08_node_names_are_compared_exactly() {
    let mut upper = endpoint("10.0.0.1", "RM");
    upper.node = Some(NODE.to_uppercase().into());
    let mut nowhere = endpoint("10.0.0.2", "RM");
    nowhere.node = None;
    let local = endpoint("10.0.0.3", "RL");
    let web = service("web", &["10.96.0.1"]);
    let plans = plan(&web, &[slice("s", "web", 80, &[upper, nowhere, local])]);
    let local: Vec<_> = plans[0].cluster.backends.iter().map(|b| b.local).collect();
    assert_eq!(local, [false, false, true]);
}

#[test]
fn eps_11_a_running_duplicate_beats_a_terminating_one() {
    let web = service("web", &["10.96.0.1"]);
    let (running, draining) = (endpoint("10.0.0.1", "RL"), endpoint("10.0.0.1", "TM"));
    for endpoints in [[running.clone(), draining.clone()], [draining, running]] {
        let slices: Vec<_> = endpoints
            .into_iter()
            .enumerate()
            .map(|(i, endpoint)| slice(&format!("s{i}"), "web", 80, &[endpoint]))
            .collect();
        let plans = plan(&web, &slices);
        assert_eq!(plans[0].cluster.backends.len(), 1);
        assert!(plans[0].cluster.backends[0].local);
    }
}

#[test]
fn eps_12_13_ports_are_joined_within_a_slice_only() {
    let web = service("web", &["10.96.0.1"]);
    let slices = [
        slice("a", "web", 8080, &[endpoint("10.0.0.1", "R"), endpoint("10.0.0.2", "R")]),
        slice("b", "web", 9090, &[endpoint("10.0.0.1", "R")]),
    ];
    let plans = plan(&web, &slices);
    let backends: Vec<_> =
        plans[0].cluster.backends.iter().map(|b| format!("{}:{}", b.addr, b.port)).collect();
    assert_eq!(backends, ["10.0.0.1:8080", "10.0.0.1:9090", "10.0.0.2:8080"]);
}

#[test]
fn top_11_internal_only_local_has_no_cluster_set() {
    let mut web = service("web", &["10.96.0.1"]);
    web.internal_policy = TrafficPolicy::Local;
    let plans = plan(&web, &[slice("s", "web", 80, &[endpoint("10.0.0.1", "RL")])]);
    assert!(plans[0].cluster.backends.is_empty());
    assert_eq!(plans[0].local.as_ref().unwrap().backends.len(), 1);
}

#[test]
fn an_address_named_twice_is_one_frontend() {
    let mut web = service("web", &["10.96.0.1"]);
    web.external_ips = vec![ip("192.0.2.1"), ip("192.0.2.1"), ip("10.96.0.1")];
    web.load_balancer_ips = vec![ip("192.0.2.1")];
    let got = frontends(&plan(&web, &[]));
    assert_eq!(
        got,
        [(FrontendKind::ClusterIp, ip("10.96.0.1")), (FrontendKind::ExternalIp, ip("192.0.2.1"))]
    );
}

#[test]
fn a_cluster_ip_bound_on_the_node_is_left_alone() {
    let mut dns = service("dns", &["10.96.0.10", "fd00:10:96::a"]);
    let bound = BTreeSet::from([ip("10.96.0.10")]);
    let got = frontends(&plan_with(&dns, &[], &bound));
    assert_eq!(got, [(FrontendKind::ClusterIp, ip("fd00:10:96::a"))]);
    // Its other frontends are nobody else's, and an externalIP may well be bound (node address).
    dns.external_ips = vec![ip("192.0.2.1")];
    let bound = BTreeSet::from([ip("10.96.0.10"), ip("192.0.2.1")]);
    let got = frontends(&plan_with(&dns, &[], &bound));
    assert_eq!(
        got,
        [
            (FrontendKind::ExternalIp, ip("192.0.2.1")),
            (FrontendKind::ClusterIp, ip("fd00:10:96::a")),
        ]
    );
}

#[test]
fn ports_without_a_partner_in_the_slices_are_reported_by_name() {
    let mut web = service("web", &["10.96.0.1"]);
    web.ports = vec![port("http", Protocol::Tcp, 80), port("", Protocol::Udp, 53)];
    assert_eq!(check_service(&web, [].iter()), []);
    let empty = slice("s", "web", 80, &[]);
    assert_eq!(check_service(&web, [empty].iter()), []);

    let mut slices = [slice("s", "web", 8080, &[endpoint("10.0.0.1", "R")])];
    slices[0].ports[0].name = "web".to_owned();
    let problems = check_service(&web, slices.iter());
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].object, "Service default/web");
    for word in ["port 80", "\"http\"/TCP", "\"web\"/TCP"] {
        assert!(problems[0].what.contains(word), "{}", problems[0]);
    }
    assert!(problems[1].what.contains("the unnamed port/UDP"), "{}", problems[1]);
    slices[0].ports[0].name = "http".to_owned();
    assert_eq!(check_service(&web, slices.iter()).len(), 1);
}

#[test]
fn sets_are_sorted_by_address_and_port_as_the_programs_search_them() {
    let order = |plans: &[ServicePortPlan]| {
        let slots: Vec<_> = plans[0].cluster.backends.iter().map(slot_order).collect();
        assert!(slots.is_sorted() && slots.len() == 4, "{slots:?}");
    };
    let web = service("web", &["10.96.0.1"]);
    let addresses = ["10.0.0.9", "10.0.0.10", "9.0.0.200", "192.0.2.1"];
    order(&plan(&web, &[slice("s", "web", 80, &addresses.map(|ip| endpoint(ip, "RM")))]));
    let web = service("web", &["fd00::1"]);
    let addresses = ["fd00::a", "fd00::9", "2001:db8::1:0", "fd00:0:0:1::"];
    order(&plan(&web, &[slice("s", "web", 80, &addresses.map(|ip| endpoint(ip, "RM")))]));
}

#[test]
fn frontends_are_sorted() {
    let mut web = service("web", &["10.96.0.1"]);
    web.ports[0].node_port = Some(number(30080));
    web.external_ips = vec![ip("192.0.2.9"), ip("192.0.2.1")];
    web.load_balancer_ips = vec![ip("192.0.2.5")];
    let plans = plan(&web, &[]);
    let keys = |f: &Frontend| (f.kind, f.addr, f.port);
    assert!(plans[0].frontends.is_sorted_by_key(keys));
    assert_eq!(plans[0].frontends.len(), 5);
}

#[test]
fn ct_05_udp_endpoints_that_serve_keep_their_flows_whatever_else_they_are() {
    let mut dns = service("dns", &["10.96.0.1"]);
    dns.ports = vec![port("", Protocol::Udp, 53), port("tcp", Protocol::Tcp, 53)];
    let endpoints = [
        endpoint("10.0.0.1", "RM"),
        endpoint("10.0.0.2", "TL"),
        endpoint("10.0.0.3", "XM"),
        endpoint("10.0.0.4", "NM"),
    ];
    let mut udp = slice("s", "dns", 53, &endpoints);
    udp.ports[0].protocol = Protocol::Udp;
    let mut tcp = slice("t", "dns", 53, &endpoints);
    tcp.ports[0].name = "tcp".to_owned();
    let serving = |dns: &Service| {
        let plans = plan(dns, &[udp.clone(), tcp.clone()]);
        assert!(plans[1].serving.is_empty(), "TCP flows are never cut");
        plans[0].serving.iter().map(|(ip, port)| format!("{ip}:{port}")).collect::<Vec<_>>()
    };
    assert_eq!(serving(&dns), ["10.0.0.2:53"]);
    // A policy that leaves endpoints out: the flows to them stay.
    dns.internal_policy = TrafficPolicy::Local;
    assert_eq!(serving(&dns), ["10.0.0.1:53"]);
}
