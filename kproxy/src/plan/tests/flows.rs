//! The flow tables FT-A to FT-K and FT-M of kube-proxy's proxier tests, as far as the plan decides them:
//! which endpoints, refused, or dropped. Masquerading and node addresses are the packet path's.

use super::*;
use crate::plan::{
    Backend, BackendSet, Change, EmptyVerdict, FrontendKind, NoLocalEndpoints, Policy, Scope,
};

use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};

/// What a new connection meets: endpoints as `address:port`, or `REJECT`, `DROP`, or `""` for a
/// destination that is no frontend.
fn meets(plans: &[ServicePortPlan], frontend: (FrontendKind, u16), outside: bool) -> String {
    let hit = plans.iter().find_map(|plan| {
        let hit = plan.frontends.iter().find(|f| (f.kind, f.port) == frontend)?;
        Some((plan, hit))
    });
    let Some((plan, hit)) = hit else { return String::new() };
    let set = match if outside { hit.external } else { hit.internal } {
        Scope::Cluster => &plan.cluster,
        Scope::Local => plan.local.as_ref().expect("a frontend that uses the local set has one"),
    };
    text(set)
}

fn text(set: &BackendSet) -> String {
    if set.backends.is_empty() {
        return match set.when_empty {
            EmptyVerdict::Reject => "REJECT".to_owned(),
            EmptyVerdict::Drop => "DROP".to_owned(),
        };
    }
    let text = |b: &Backend| format!("{}:{}", b.addr, b.port);
    set.backends.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// A load-balancer Service with every kind of frontend.
fn load_balancer() -> Service {
    let mut service = service("svc", &["172.30.0.41"]);
    service.kind = ServiceType::LoadBalancer;
    service.external_ips = vec![ip("192.168.99.11")];
    service.load_balancer_ips = vec![ip("1.2.3.4")];
    service.ports[0].node_port = Some(number(3001));
    service
}

const OUTSIDE_FRONTENDS: [(FrontendKind, u16); 3] =
    [(NodePort, 3001), (ExternalIp, 80), (LoadBalancer, 80)];

#[test]
fn ft_a_no_endpoints_reject() {
    let plans = plan(&load_balancer(), &[]);
    for outside in [false, true] {
        for frontend in OUTSIDE_FRONTENDS.into_iter().chain([(ClusterIp, 80)]) {
            assert_eq!(meets(&plans, frontend, outside), "REJECT", "{frontend:?}");
        }
    }
}

#[test]
fn ft_b_cluster_ip_general() {
    let mut svc2 = service("svc2", &["172.30.0.42"]);
    svc2.ports = vec![
        port("http", Protocol::Tcp, 80),
        port("https", Protocol::Tcp, 443),
        port("dns-udp", Protocol::Udp, 53),
        port("dns-tcp", Protocol::Tcp, 53),
        port("dns-sctp", Protocol::Sctp, 53),
    ];
    let endpoints = [endpoint("10.180.0.1", "RL"), endpoint("10.180.2.1", "RM")];
    let mut slices = [slice("svc2", "svc2", 80, &endpoints)];
    slices[0].ports = [
        ("http", Protocol::Tcp, 80),
        ("https", Protocol::Tcp, 8443),
        ("dns-udp", Protocol::Udp, 53),
        ("dns-tcp", Protocol::Tcp, 5353),
        ("dns-sctp", Protocol::Sctp, 53),
    ]
    .map(|(name, protocol, port)| SlicePort { name: name.to_owned(), protocol, port: number(port) })
    .to_vec();
    let plans = plan(&svc2, &slices);
    for (name, protocol, dialled, reached) in [
        ("http", Protocol::Tcp, 80, 80),
        ("https", Protocol::Tcp, 443, 8443),
        ("dns-udp", Protocol::Udp, 53, 53),
        ("dns-tcp", Protocol::Tcp, 53, 5353),
        ("dns-sctp", Protocol::Sctp, 53, 53),
    ] {
        let own: Vec<_> = plans
            .iter()
            .filter(|plan| plan.id.port == name && plan.id.protocol == protocol)
            .cloned()
            .collect();
        let expected = format!("10.180.0.1:{reached} 10.180.2.1:{reached}");
        assert_eq!(meets(&own, (ClusterIp, dialled), false), expected);
    }
    assert_eq!(plans.len(), 5);
}

#[test]
fn ft_d_node_ports() {
    let mut both = service("svc", &["172.30.0.41", "fd00:172:30::41"]);
    both.kind = ServiceType::NodePort;
    both.ports[0].node_port = Some(number(3001));
    let slices = [
        slice("v4", "svc", 80, &[endpoint("10.180.0.1", "RM"), endpoint("10.180.2.1", "RL")]),
        slice("v6", "svc", 80, &[endpoint("fd00:10:180::1", "RM")]),
    ];
    let plans = plan(&both, &slices);
    assert_eq!(plans.len(), 2);
    assert_eq!(meets(&plans[..1], (NodePort, 3001), true), "10.180.0.1:80 10.180.2.1:80");
    assert_eq!(meets(&plans[1..], (NodePort, 3001), true), "fd00:10:180::1:80");
    for plan in &plans {
        let node_port = plan.frontends.iter().find(|f| f.kind == NodePort).unwrap();
        assert_eq!(node_port.addr, plan.id.family.unspecified());
    }
}

#[test]
fn ft_e_external_traffic_policy_local() {
    let mut svc = load_balancer();
    svc.external_policy_written = TrafficPolicy::Local;
    let endpoints = [endpoint("10.180.0.1", "RM"), endpoint("10.180.2.1", "RL")];
    let plans = plan(&svc, &[slice("s", "svc", 80, &endpoints)]);
    let both = "10.180.0.1:80 10.180.2.1:80";
    assert_eq!(meets(&plans, (ClusterIp, 80), false), both);
    for frontend in OUTSIDE_FRONTENDS {
        assert_eq!(meets(&plans, frontend, false), both);
        assert_eq!(meets(&plans, frontend, true), "10.180.2.1:80");
    }
}

#[test]
fn ft_f_external_traffic_policy_cluster() {
    let endpoints = [endpoint("10.180.0.1", "RM"), endpoint("10.180.2.1", "RL")];
    let plans = plan(&load_balancer(), &[slice("s", "svc", 80, &endpoints)]);
    for frontend in OUTSIDE_FRONTENDS.into_iter().chain([(ClusterIp, 80)]) {
        for outside in [false, true] {
            assert_eq!(meets(&plans, frontend, outside), "10.180.0.1:80 10.180.2.1:80");
        }
    }
    assert_eq!(plans[0].local, None);
}

#[test]
fn ft_g_internal_traffic_policy() {
    let all = "10.180.0.1:80 10.180.0.2:80 10.180.0.3:80";
    for (policy, states, expected) in [
        (TrafficPolicy::Cluster, ["RM", "RM", "RM"], all),
        (TrafficPolicy::Local, ["RL", "RM", "RM"], "10.180.0.1:80"),
        (TrafficPolicy::Local, ["RL", "RL", "RM"], "10.180.0.1:80 10.180.0.2:80"),
        (TrafficPolicy::Local, ["RM", "RM", "RM"], "DROP"),
    ] {
        let mut svc = service("svc", &["172.30.0.41"]);
        svc.internal_policy = policy;
        let endpoints = [
            endpoint("10.180.0.1", states[0]),
            endpoint("10.180.0.2", states[1]),
            endpoint("10.180.0.3", states[2]),
        ];
        let plans = plan(&svc, &[slice("s", "svc", 80, &endpoints)]);
        assert_eq!(meets(&plans, (ClusterIp, 80), false), expected, "{states:?}");
        assert_eq!(meets(&plan(&svc, &[]), (ClusterIp, 80), false), "REJECT");
    }
}

fn terminating(policy: TrafficPolicy, endpoints: &[(&str, &str)]) -> (String, String) {
    let mut svc = load_balancer();
    svc.external_policy_written = policy;
    let endpoints: Vec<_> = endpoints.iter().map(|(addr, state)| endpoint(addr, state)).collect();
    let plans = plan(&svc, &[slice("s", "svc", 80, &endpoints)]);
    (meets(&plans, (ClusterIp, 80), false), meets(&plans, (LoadBalancer, 80), true))
}

#[test]
fn ft_h_terminating_endpoints_traffic_policy_local() {
    for (endpoints, pod, outside) in [
        (
            &[
                ("10.0.1.1", "RL"),
                ("10.0.1.2", "RL"),
                ("10.0.1.3", "TL"),
                ("10.0.1.4", "XL"),
                ("10.0.1.5", "RM"),
            ][..],
            "10.0.1.1:80 10.0.1.2:80 10.0.1.5:80",
            "10.0.1.1:80 10.0.1.2:80",
        ),
        (
            &[("10.0.1.2", "TL"), ("10.0.1.3", "TL"), ("10.0.1.4", "XL"), ("10.0.1.5", "RM")],
            "10.0.1.5:80",
            "10.0.1.2:80 10.0.1.3:80",
        ),
        (&[("10.0.1.5", "TM")], "10.0.1.5:80", "DROP"),
        (&[("10.0.1.4", "XL"), ("10.0.1.5", "XM")], "REJECT", "REJECT"),
        (&[], "REJECT", "REJECT"),
    ] {
        let got = terminating(TrafficPolicy::Local, endpoints);
        assert_eq!(got, (pod.to_owned(), outside.to_owned()), "{endpoints:?}");
    }
}

#[test]
fn ft_i_terminating_endpoints_traffic_policy_cluster() {
    for (endpoints, both) in [
        (
            &[
                ("10.0.1.1", "RL"),
                ("10.0.1.2", "RL"),
                ("10.0.1.3", "TM"),
                ("10.0.1.4", "XM"),
                ("10.0.1.5", "RM"),
            ][..],
            "10.0.1.1:80 10.0.1.2:80 10.0.1.5:80",
        ),
        (
            &[("10.0.1.2", "TL"), ("10.0.1.3", "TL"), ("10.0.1.4", "XM"), ("10.0.1.5", "TM")],
            "10.0.1.2:80 10.0.1.3:80 10.0.1.5:80",
        ),
        (&[("10.0.1.5", "TM")], "10.0.1.5:80"),
        (&[("10.0.1.4", "XL"), ("10.0.1.5", "XM")], "REJECT"),
        (&[], "REJECT"),
    ] {
        let got = terminating(TrafficPolicy::Cluster, endpoints);
        assert_eq!(got, (both.to_owned(), both.to_owned()), "{endpoints:?}");
    }
}

#[test]
fn ft_m_no_endpoints_metric() {
    use TrafficPolicy::{Cluster, Local};
    let (here, elsewhere) = (["RL", "RM", "RM"], ["RM", "RM", "RM"]);
    for (internal, external, states, counted) in [
        (Local, Cluster, &here[..], (0, 0)),
        (Cluster, Local, &here, (0, 0)),
        (Local, Local, &here, (0, 0)),
        (Local, Cluster, &elsewhere, (1, 0)),
        (Cluster, Local, &elsewhere, (0, 1)),
        (Local, Local, &elsewhere, (1, 1)),
        (Local, Local, &[], (0, 0)),
        // Not kube-proxy's: local endpoints that end count, those that serve no more do not.
        (Local, Local, &["TL", "RM"], (0, 0)),
        (Local, Local, &["XL", "RM"], (1, 1)),
        (Cluster, Cluster, &elsewhere, (0, 0)),
    ] {
        let mut svc = service("svc1", &["172.30.1.1"]);
        svc.internal_policy = internal;
        svc.external_policy_written = external;
        svc.ports[0].node_port = Some(number(123));
        svc.kind = ServiceType::NodePort;
        let endpoints = states.iter().zip(1..);
        let endpoints: Vec<_> =
            endpoints.map(|(state, n)| endpoint(&format!("10.0.1.{n}"), state)).collect();
        let mut no_local_endpoints = NoLocalEndpoints::default();
        let count = |ports: &NoLocalEndpoints, family| {
            (ports.count(Policy::Internal, family), ports.count(Policy::External, family))
        };
        // The same change twice counts once.
        for plan in
            [(); 2].map(|()| plan(&svc, &[slice("svc1-1", "svc1", 80, &endpoints)])).concat()
        {
            no_local_endpoints.update(&Change::Set(plan));
        }
        let case = format!("{internal:?} {external:?} {states:?}");
        assert_eq!(count(&no_local_endpoints, Family::V4), counted, "{case}");
        assert_eq!(count(&no_local_endpoints, Family::V6), (0, 0), "{case}");
        no_local_endpoints.update(&Change::Remove(plan(&svc, &[])[0].id.clone()));
        assert_eq!(count(&no_local_endpoints, Family::V4), (0, 0), "{case}");
    }
    // externalTrafficPolicy of a Service that nobody outside can dial counts for nothing (TOP-12).
    let mut inner = service("svc1", &["172.30.1.1"]);
    inner.external_policy_written = Local;
    let plans = plan(&inner, &[slice("svc1-1", "svc1", 80, &[endpoint("10.0.1.1", "RM")])]);
    let mut no_local_endpoints = NoLocalEndpoints::default();
    no_local_endpoints.update(&Change::Set(plans[0].clone()));
    assert_eq!(no_local_endpoints.count(Policy::External, Family::V4), 0);
}

/// The base run of `TestInternalExternalMasquerade`, without the masquerade column. The run
/// without a detector differs in kproxy: see [`plan_service`].
#[test]
fn ft_j_internal_and_external() {
    const L: &str = "10.180.0.1:80";
    const LM: &str = "10.180.0.1:80 10.180.2.1:80";
    use TrafficPolicy::{Cluster, Local};
    let endpoints = [endpoint("10.180.0.1", "RL"), endpoint("10.180.2.1", "RM")];
    for (internal_policy, external_policy, cluster_ip, inside, outside) in
        [(Cluster, Cluster, LM, LM, LM), (Cluster, Local, LM, LM, L), (Local, Cluster, L, LM, LM)]
    {
        let mut svc = load_balancer();
        svc.internal_policy = internal_policy;
        svc.external_policy_written = external_policy;
        let plans = plan(&svc, &[slice("s", "svc", 80, &endpoints)]);
        for from_outside in [false, true] {
            assert_eq!(meets(&plans, (ClusterIp, 80), from_outside), cluster_ip);
        }
        for frontend in [(NodePort, 3001), (LoadBalancer, 80)] {
            assert_eq!(meets(&plans, frontend, false), inside);
            assert_eq!(meets(&plans, frontend, true), outside);
        }
    }
}
