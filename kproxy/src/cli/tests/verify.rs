//! What `kproxy verify` and `kproxy diff` print.

use super::{PLAIN, TERMINAL};
use crate::cli::args::Format;
use crate::cli::diff::changes;
use crate::cli::diff::print::{self as diff, Diffed};
use crate::cli::render::Look;
use crate::cli::verify::print::{self as verify, Verified};
use crate::dataplane::read::{FlowHalves, FlowKind, FlowRow};
use crate::dataplane::verify::{Finding, Kind};
use crate::model::Problem;
use crate::plan::{
    Algorithm, Backend, BackendSet, EmptyVerdict, Family, Protocol, Scope, ServicePortId,
    ServicePortPlan,
};

fn service(name: &str, port: &str, protocol: Protocol) -> ServicePortId {
    ServicePortId {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        port: port.to_owned(),
        protocol,
        family: Family::V4,
    }
}

fn finding(
    of: Option<ServicePortId>,
    kind: Kind,
    object: &str,
    planned: Option<&str>,
    kernel: Option<&str>,
) -> Finding {
    Finding {
        service: of,
        kind,
        object: object.to_owned(),
        planned: planned.map(str::to_owned),
        kernel: kernel.map(str::to_owned),
        contradiction: None,
    }
}

fn web() -> Option<ServicePortId> {
    Some(service("web", "http", Protocol::Tcp))
}

fn verified() -> Verified {
    Verified {
        source: Some("the API server of /etc/kubernetes/kubelet.conf".to_owned()),
        no_plan: None,
        daemon: Some(4711),
        services: 12,
        frontends: 31,
        programs: 22,
        differences: vec![
            finding(
                Some(service("kubernetes", "https", Protocol::Tcp)),
                Kind::Frontend,
                "10.96.0.1:443/TCP",
                Some("service default/kubernetes:https, ClusterIP"),
                None,
            ),
            finding(
                web(),
                Kind::Backend,
                "10.244.1.5:8080",
                Some("in the Cluster set, on this node"),
                None,
            ),
            finding(
                web(),
                Kind::Backend,
                "10.244.1.5:81",
                None,
                Some("in the Cluster set, on this node"),
            ),
            finding(None, Kind::Hook, "kp_ingress at eth0", Some("attached"), None),
        ],
        remaining: None,
    }
}

fn flow(backend: &str, of: ServicePortId) -> FlowRow {
    FlowRow {
        protocol: Some(of.protocol),
        client: "192.0.2.7:40112".parse().unwrap(),
        frontend: "192.0.2.11:31443".parse().unwrap(),
        backend: backend.parse().unwrap(),
        state: None,
        assured: true,
        source: None,
        halves: FlowHalves::Both,
        idle_seconds: None,
        expires_in_seconds: 60,
        kind: FlowKind::Service,
        set: Some(Scope::Cluster),
        id: Some(1),
        service: Some(of),
    }
}

fn plan(id: ServicePortId, backends: &[[u8; 4]]) -> ServicePortPlan {
    let backend = |ip: &[u8; 4]| Backend { addr: (*ip).into(), port: 8080, local: false };
    ServicePortPlan {
        id,
        frontends: Vec::new(),
        cluster: BackendSet {
            backends: backends.iter().map(backend).collect(),
            when_empty: EmptyVerdict::Reject,
        },
        local: None,
        serving: Vec::new(),
        created: None,
        affinity_seconds: None,
        algorithm: Algorithm::RoundRobin,
        source_ranges: Vec::new(),
    }
}

/// A Service that changes, one that comes, a port that goes.
fn diffed() -> Diffed {
    let (api, dns) = (service("api", "", Protocol::Tcp), service("web", "dns", Protocol::Udp));
    let plans =
        [plan(service("web", "http", Protocol::Tcp), &[]), plan(api.clone(), &[[10, 244, 2, 9]])];
    let cluster = Some("in the Cluster set");
    let findings = vec![
        finding(Some(api.clone()), Kind::Service, "default/api TCP/IPv4", Some("1 backend"), None),
        finding(
            Some(api.clone()),
            Kind::Frontend,
            "10.96.7.7:443/TCP",
            Some("service default/api, ClusterIP"),
            None,
        ),
        finding(
            Some(dns.clone()),
            Kind::Service,
            "default/web:dns UDP/IPv4",
            None,
            Some("1 backend"),
        ),
        finding(
            Some(dns.clone()),
            Kind::Frontend,
            "10.96.34.7:53/UDP",
            None,
            Some("service default/web:dns, ClusterIP"),
        ),
        finding(Some(dns.clone()), Kind::Backend, "10.244.1.6:53", None, cluster),
        finding(web(), Kind::Backend, "10.244.1.5:8080", None, cluster),
        finding(web(), Kind::Algorithm, "", Some("maglev"), Some("round-robin")),
        finding(
            web(),
            Kind::Frontend,
            "NodePort 31443/TCP (IPv4)",
            Some("outside Local"),
            Some("outside Cluster"),
        ),
    ];
    let flows = [
        flow("10.244.1.5:8080", service("web", "http", Protocol::Tcp)),
        flow("10.244.1.6:53", dns),
    ];
    Diffed {
        source: Some("the API server of /etc/kubernetes/kubelet.conf".to_owned()),
        services: changes(findings, &plans, &flows, |_| true),
        compared: 4,
        reported: vec![Problem::new(
            "Service default/api",
            "externalIP 203.0.113.20, port 443/TCP belongs to Service default/shop",
            "give it another address or port",
        )],
    }
}

fn print_verified(format: Format, look: &Look, verified: &Verified) -> String {
    let mut out = Vec::new();
    verify::print(&mut out, look, format, verified).unwrap();
    String::from_utf8(out).unwrap()
}

fn print_diffed(format: Format, look: &Look) -> String {
    let mut out = Vec::new();
    diff::print(&mut out, look, format, &diffed()).unwrap();
    String::from_utf8(out).unwrap()
}

/// Samples of `docs/cli.md`.
pub(super) fn samples() -> Vec<(String, String)> {
    let mut one = verified();
    one.differences.truncate(1);
    vec![
        ("verify".to_owned(), print_verified(Format::Table, &TERMINAL, &verified())),
        ("verify -o json".to_owned(), print_verified(Format::Json, &PLAIN, &one)),
        ("diff -f web.yaml".to_owned(), print_diffed(Format::Table, &TERMINAL)),
        ("diff -f web.yaml -o json".to_owned(), print_diffed(Format::Json, &PLAIN)),
    ]
}

#[test]
fn lines_fit_a_terminal_and_are_one_a_difference_elsewhere() {
    let (narrow, wide) = (
        print_verified(Format::Table, &TERMINAL, &verified()),
        print_verified(Format::Wide, &TERMINAL, &verified()),
    );
    assert!(narrow.lines().all(|line| line.len() <= 80), "{narrow}");
    assert_eq!(wide.lines().count(), 5);
    assert!(print_diffed(Format::Table, &TERMINAL).lines().all(|line| line.len() <= 80));
}

#[test]
fn the_last_line_says_what_was_compared_and_found() {
    let mut verified = Verified { differences: Vec::new(), ..verified() };
    let last = |verified: &Verified| {
        let text = print_verified(Format::Table, &PLAIN, verified);
        (text.lines().last().unwrap().to_owned(), verified.in_order())
    };
    let seen = "12 service ports, 31 frontends, 22 programs";
    let source = "from the API server of /etc/kubernetes/kubelet.conf";
    assert_eq!(last(&verified), (format!("no difference {source}: {seen}"), true));
    let hook = finding(None, Kind::Hook, "kp_egress at eth0", Some("attached"), None);
    verified.differences = vec![hook.clone()];
    assert_eq!(last(&verified), (format!("1 difference {source}"), false));
    verified.remaining = Some(Vec::new());
    assert_eq!(last(&verified), ("1 difference, all repaired".to_owned(), true));
    verified.remaining = Some(vec![hook]);
    assert_eq!(last(&verified), ("1 difference, 1 difference after the repair".to_owned(), false));
    let none = Verified { source: None, differences: Vec::new(), remaining: None, ..verified };
    let told = format!("no contradiction in the maps: {seen}; not compared with a plan");
    assert_eq!(last(&none), (told, true));
}

#[test]
fn backends_that_nobody_knows_are_not_compared() {
    let findings = vec![
        finding(web(), Kind::Backend, "10.244.1.5:8080", None, Some("in the Cluster set")),
        finding(web(), Kind::Algorithm, "", Some("maglev"), Some("round-robin")),
    ];
    let changed = changes(findings, &[], &[], |_| false);
    let kinds: Vec<_> = changed[0].differences.iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [Kind::Algorithm]);
}
