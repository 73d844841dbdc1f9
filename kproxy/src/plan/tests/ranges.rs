//! Source ranges of load-balancer addresses.

use super::*;
use crate::plan::{FrontendKind, Sources, check_service};

const V4: &str = "203.0.113.20";
const V6: &str = "2001:db8:5::20";

/// A dual-stack load balancer with every kind of frontend.
fn balancer(ranges: &[&str]) -> Service {
    let mut web = service("web", &["10.96.0.1", "fd00:10:96::1"]);
    web.kind = ServiceType::LoadBalancer;
    web.external_ips = vec![ip("203.0.113.99")];
    web.load_balancer_ips = vec![ip(V4), ip(V6)];
    web.ports[0].node_port = Some(number(30080));
    web.source_ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    web
}

fn plan_on(service: &Service, node_addresses: &[&str], local: &[&str]) -> Vec<ServicePortPlan> {
    let node_addresses: Vec<_> = node_addresses.iter().map(|text| ip(text)).collect();
    let local_addresses = local.iter().map(|text| ip(text)).collect();
    let context = PlanContext {
        node_name: NODE,
        zone: None,
        local_addresses: &local_addresses,
        node_addresses: &node_addresses,
        algorithm: Algorithm::RoundRobin,
    };
    plan_service(service, [].iter(), &context)
}

/// Who may dial the load-balancer address of each family, and the ranges.
fn vips(plans: &[ServicePortPlan]) -> Vec<(Sources, String)> {
    let vip = |plan: &ServicePortPlan| {
        let of_kind = |f: &&crate::plan::Frontend| f.kind == FrontendKind::LoadBalancer;
        let sources = plan.frontends.iter().find(of_kind).unwrap().sources;
        let ranges: Vec<_> = plan.source_ranges.iter().map(ToString::to_string).collect();
        (sources, ranges.join(" "))
    };
    plans.iter().map(vip).collect()
}

const CLOSED: Sources = Sources::Ranges { node: false };
const CLOSED_BUT_NODE: Sources = Sources::Ranges { node: true };

#[test]
fn lbr_01_only_load_balancer_addresses_are_restricted() {
    let web = balancer(&["192.0.2.0/24"]);
    let plans = plan(&web, &[]);
    for frontend in plans.iter().flat_map(|plan| &plan.frontends) {
        let restricted = frontend.kind == FrontendKind::LoadBalancer && frontend.addr == ip(V4);
        let wanted = if restricted { CLOSED } else { Sources::All };
        assert_eq!(frontend.sources, wanted, "{frontend:?}");
    }
    assert_eq!(check_service(&web, [].iter()), []);
}

#[test]
fn lbr_06_an_address_listed_as_another_kind_too_is_restricted_all_the_same() {
    let mut web = balancer(&["192.0.2.0/24"]);
    web.external_ips = vec![ip(V4), ip("203.0.113.99")];
    let plans = plan(&web, &[]);
    let of = |addr: &str| {
        plans[0].frontends.iter().find(|f| f.addr == ip(addr)).map(|f| (f.kind, f.sources))
    };
    assert_eq!(of(V4), Some((FrontendKind::ExternalIp, CLOSED)));
    assert_eq!(of("203.0.113.99"), Some((FrontendKind::ExternalIp, Sources::All)));
}

#[test]
fn lbr_07_lbr_08_a_range_of_length_zero_and_no_range_of_the_family_open_to_all() {
    let all = (Sources::All, String::new());
    for (ranges, v4, v6) in [
        (&[][..], all.clone(), all.clone()),
        (&["0.0.0.0/0"], all.clone(), all.clone()),
        (&["192.0.2.0/24", "0.0.0.0/0"], all.clone(), all.clone()),
        (&["192.0.2.0/24"], (CLOSED, "192.0.2.0/24".into()), all.clone()),
        (&["2001:db8::/32"], all.clone(), (CLOSED, "2001:db8::/32".into())),
        (&["192.0.2.0/24", "::/0"], (CLOSED, "192.0.2.0/24".into()), all.clone()),
        // "Everyone" without a range of length zero.
        (&["0.0.0.0/1", "128.0.0.0/1"], (CLOSED, "0.0.0.0/0".into()), all.clone()),
        (
            &["192.0.2.128/25", "192.0.2.7/32", "192.0.2.0/25", "10.0.0.0/8"],
            (CLOSED, "10.0.0.0/8 192.0.2.0/24".into()),
            all,
        ),
    ] {
        assert_eq!(vips(&plan(&balancer(ranges), &[])), [v4, v6], "{ranges:?}");
    }
    // Ranges without an address to protect are not written anywhere.
    let mut none = balancer(&["192.0.2.0/24"]);
    none.load_balancer_ips.clear();
    assert!(plan(&none, &[]).iter().all(|plan| plan.source_ranges.is_empty()));
}

#[test]
fn lbr_03_ranges_that_hold_the_node_hold_its_load_balancer_addresses_too() {
    let web = balancer(&["172.18.0.0/24", "fd00:18::/64"]);
    let near = plan_on(&web, &["172.18.0.11", "fd00:18::11"], &[]);
    let with_vips = [
        (CLOSED_BUT_NODE, format!("172.18.0.0/24 {V4}/32")),
        (CLOSED_BUT_NODE, format!("{V6}/128 fd00:18::/64")),
    ];
    assert_eq!(vips(&near), with_vips);
    // One family at a time, and only the Node's address counts where there is one.
    let far = plan_on(&web, &["172.18.1.11"], &["172.18.0.99", "fd00:18::99"]);
    assert_eq!(vips(&far)[0], (CLOSED, "172.18.0.0/24".into()));
    // Without a Node object the devices tell, loopback left out.
    assert_eq!(vips(&far)[1], with_vips[1]);
    let loopback = balancer(&["127.0.0.0/8"]);
    assert_eq!(vips(&plan_on(&loopback, &[], &["127.0.0.1"]))[0].0, CLOSED);
}
