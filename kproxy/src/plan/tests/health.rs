//! What load balancers are told (HCN).

use super::*;
use crate::plan::health_check;

fn load_balancer(cluster_ips: &[&str]) -> Service {
    let mut web = service("web", cluster_ips);
    web.kind = ServiceType::LoadBalancer;
    web.external_policy_written = TrafficPolicy::Local;
    web.health_check_node_port = Some(number(32000));
    web
}

fn counts(service: &Service, slices: &[Slice]) -> Vec<usize> {
    let check = health_check(service, slices.iter(), NODE).unwrap();
    assert_eq!(check.port.get(), 32000);
    check.endpoints.into_values().collect()
}

#[test]
fn hcn_06_ready_addresses_on_this_node_count() {
    for (endpoints, count) in [
        (&[][..], 0),
        (&[("10.0.0.1", "RL"), ("10.0.0.2", "RM")][..], 1),
        // Terminating endpoints do not count, although traffic still goes to them.
        (&[("10.0.0.1", "TL"), ("10.0.0.2", "NL"), ("10.0.0.3", "XL")], 0),
        // An address counts once.
        (&[("10.0.0.1", "RL"), ("10.0.0.1", "RL"), ("10.0.0.2", "RL")], 2),
        // EPS-11: the running entry of an address stands.
        (&[("10.0.0.1", "TL"), ("10.0.0.1", "RL")], 1),
        (&[("10.0.0.1", "RL"), ("10.0.0.1", "TL")], 1),
    ] {
        let endpoints: Vec<_> = endpoints.iter().map(|(ip, state)| endpoint(ip, state)).collect();
        let slices = [slice("s", "web", 80, &endpoints)];
        assert_eq!(counts(&load_balancer(&["10.96.0.1"]), &slices), [count], "{endpoints:?}");
    }
}

#[test]
fn hcn_06_every_port_counts_and_each_address_once() {
    let mut web = load_balancer(&["10.96.0.1"]);
    web.ports.push(port("other", Protocol::Udp, 81));
    let (one, two) = (endpoint("10.0.0.1", "RL"), endpoint("10.0.0.2", "RL"));
    let mut other = slice("b", "web", 81, &[one.clone(), two]);
    other.ports[0].name = "other".to_owned();
    assert_eq!(counts(&web, &[slice("a", "web", 80, &[one]), other]), [2]);
}

#[test]
fn hcn_12_each_family_has_its_own_count() {
    let slices = [
        slice("a", "web", 80, &[endpoint("10.0.0.1", "RL")]),
        slice("b", "web", 80, &[endpoint("fd00::1", "RM")]),
    ];
    assert_eq!(counts(&load_balancer(&["10.96.0.1", "fd00:10:96::1"]), &slices), [1, 0]);
    assert_eq!(counts(&load_balancer(&["fd00:10:96::1"]), &slices), [0]);
}

#[test]
fn hcn_08_other_types_and_policies_have_no_health_check() {
    let change: [fn(&mut Service); 3] = [
        |web| web.kind = ServiceType::NodePort,
        |web| web.external_policy_written = TrafficPolicy::Cluster,
        |web| web.health_check_node_port = None,
    ];
    for change in change {
        let mut web = load_balancer(&["10.96.0.1"]);
        change(&mut web);
        assert_eq!(health_check(&web, [].iter(), NODE), None);
    }
}
