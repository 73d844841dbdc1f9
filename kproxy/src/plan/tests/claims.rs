//! Two service ports that want one frontend (VER-19).

use super::*;
use crate::plan::claims::{Claims, Settled};
use crate::plan::{Change, ServicePortId};

/// Plans `default/name`: ClusterIP of its own and the given externalIPs.
fn external(name: &str, cluster_ip: &str, external: &[&str]) -> ServicePortPlan {
    let mut service = service(name, &[cluster_ip]);
    service.external_ips = external.iter().map(|text| ip(text)).collect();
    plan(&service, &[]).remove(0)
}

fn set(claims: &mut Claims, plan: &ServicePortPlan) -> Settled {
    claims.update([(plan.id.clone(), Some(plan.clone()))])
}

/// `name: addresses` of each change, `name gone` for removals.
fn told(settled: &Settled) -> Vec<String> {
    let tell = |change: &Change| match change {
        Change::Remove(id) => format!("{} gone", id.name),
        Change::Set(plan) => {
            let addrs: Vec<_> = plan.frontends.iter().map(|f| f.addr.to_string()).collect();
            format!("{}: {}", plan.id.name, addrs.join(" "))
        }
    };
    settled.changes.iter().map(tell).collect()
}

fn names(ids: &BTreeSet<ServicePortId>) -> Vec<&str> {
    ids.iter().map(|id| id.name.as_str()).collect()
}

#[test]
fn ver_19_the_smaller_name_wins_in_either_order() {
    let a = external("a", "10.96.0.1", &["192.0.2.1"]);
    let b = external("b", "10.96.0.2", &["192.0.2.1"]);
    for order in [[&a, &b], [&b, &a]] {
        let mut claims = Claims::new();
        for plan in order {
            set(&mut claims, plan);
        }
        let plans = claims.plans();
        assert_eq!(plans[0], a);
        assert_eq!(plans[1].frontends.len(), 1);
        assert_eq!(claims.problems(&a.id), []);
        let problems = claims.problems(&b.id);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].object, "Service default/b");
        assert!(problems[0].what.contains("192.0.2.1:80/TCP"), "{}", problems[0]);
        assert!(problems[0].what.contains("default/a TCP/IPv4"), "{}", problems[0]);
    }
}

#[test]
fn ver_19_the_older_service_wins_whatever_its_name() {
    let aged = |name, addr, created| {
        let mut plan = external(name, addr, &["192.0.2.1"]);
        plan.created = created;
        plan
    };
    let young = aged("a", "10.96.0.1", Some(200));
    let old = aged("b", "10.96.0.2", Some(100));
    let undated = aged("0", "10.96.0.3", None);
    for order in [[&young, &old, &undated], [&undated, &young, &old], [&old, &undated, &young]] {
        let mut claims = Claims::new();
        for plan in order {
            set(&mut claims, plan);
        }
        let served: Vec<_> = claims.plans().iter().map(|plan| plan.frontends.len()).collect();
        assert_eq!(served, [1, 1, 2], "0, a, b");
        assert!(claims.problems(&young.id)[0].what.contains("belongs to default/b"));
    }
    // Made anew under its old name, it is the youngest.
    let mut claims = Claims::new();
    set(&mut claims, &young);
    set(&mut claims, &old);
    let settled = set(&mut claims, &aged("b", "10.96.0.2", Some(300)));
    assert_eq!(told(&settled), ["a: 10.96.0.1 192.0.2.1", "b: 10.96.0.2"]);
}

#[test]
fn ver_19_a_cluster_ip_beats_any_external_ip() {
    let thief = external("a", "10.96.0.1", &["10.96.0.2"]);
    let owner = external("b", "10.96.0.2", &[]);
    let mut claims = Claims::new();
    assert_eq!(told(&set(&mut claims, &thief)), ["a: 10.96.0.1 10.96.0.2"]);
    let settled = set(&mut claims, &owner);
    assert_eq!(told(&settled), ["a: 10.96.0.1", "b: 10.96.0.2"]);
    assert_eq!(names(&settled.disputed), ["a"]);
}

#[test]
fn ver_19_the_loser_inherits() {
    let a = external("a", "10.96.0.1", &["192.0.2.1"]);
    let b = external("b", "10.96.0.2", &["192.0.2.1"]);
    let mut claims = Claims::new();
    set(&mut claims, &a);
    set(&mut claims, &b);
    let settled = claims.update([(a.id.clone(), None)]);
    assert_eq!(told(&settled), ["a gone", "b: 10.96.0.2 192.0.2.1"]);
    assert_eq!(names(&settled.disputed), ["b"]);
    assert_eq!(claims.problems(&b.id), []);
    // It comes back and takes it again.
    let settled = set(&mut claims, &a);
    assert_eq!(told(&settled), ["a: 10.96.0.1 192.0.2.1", "b: 10.96.0.2"]);
}

#[test]
fn ver_19_a_loser_that_gives_up_has_no_problem_any_more() {
    let a = external("a", "10.96.0.1", &["192.0.2.1"]);
    let mut claims = Claims::new();
    set(&mut claims, &a);
    set(&mut claims, &external("b", "10.96.0.2", &["192.0.2.1"]));
    let content = external("b", "10.96.0.2", &[]);
    assert_eq!(names(&set(&mut claims, &content).disputed), ["b"]);
    assert_eq!(claims.problems(&content.id), []);
    // The same for one that goes altogether.
    set(&mut claims, &external("b", "10.96.0.2", &["192.0.2.1"]));
    let settled = claims.update([(content.id.clone(), None)]);
    assert_eq!(names(&settled.disputed), ["b"]);
    assert_eq!(claims.problems(&content.id), []);
}

#[test]
fn a_third_claimant_learns_of_the_new_winner() {
    let mut claims = Claims::new();
    for (name, addr) in [("b", "10.96.0.2"), ("c", "10.96.0.3")] {
        set(&mut claims, &external(name, addr, &["192.0.2.1"]));
    }
    let a = external("a", "10.96.0.1", &["192.0.2.1"]);
    let settled = set(&mut claims, &a);
    assert_eq!(names(&settled.disputed), ["b", "c"]);
    let c = external("c", "10.96.0.3", &[]).id;
    assert!(claims.problems(&c)[0].what.contains("belongs to default/a"));
}

#[test]
fn other_ports_and_protocols_are_other_frontends() {
    let mut claims = Claims::new();
    let mut dns = service("dns", &["10.96.0.10"]);
    dns.ports = vec![port("udp", Protocol::Udp, 53), port("tcp", Protocol::Tcp, 53)];
    let plans = plan(&dns, &[]);
    let settled = claims.update(plans.into_iter().map(|plan| (plan.id.clone(), Some(plan))));
    assert_eq!(settled.changes.len(), 2);
    assert!(settled.disputed.is_empty());
}

#[test]
fn the_same_plan_again_changes_nothing() {
    let a = external("a", "10.96.0.1", &["192.0.2.1"]);
    let mut claims = Claims::new();
    set(&mut claims, &a);
    assert_eq!(set(&mut claims, &a), Settled::default());
    let unknown = external("b", "10.96.0.2", &[]).id;
    assert_eq!(claims.update([(unknown, None)]), Settled::default());
    assert_eq!(claims.plans().len(), 1);
}

#[test]
fn ids_of_a_service_are_its_own() {
    let mut claims = Claims::new();
    for (name, addr) in [("web", "10.96.0.1"), ("web-2", "10.96.0.2"), ("we", "10.96.0.3")] {
        set(&mut claims, &external(name, addr, &[]));
    }
    let name = ServiceName::new("default", "web");
    assert_eq!(claims.ids_of(&name).map(|id| id.name.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_eq!(claims.ids_of(&ServiceName::new("default", "w")).count(), 0);
}
