//! `TestCategorizeEndpoints` of kubernetes `pkg/proxy/topology_test.go`, case by case.
//!
//! Case 11 has no counterpart: it switches off a feature gate that is locked on since 1.35, so its
//! input is that of case 12.

use super::*;
use crate::plan::topology::{Candidate, Uses, categorize};
use crate::plan::{Backend, BackendSet, EmptyVerdict};

struct Case {
    number: u8,
    what: &'static str,
    node: &'static str,
    zone: Option<&'static str>,
    uses: Uses,
    /// `address state [z:zones] [n:nodes]`, the address being the last octet.
    endpoints: &'static [&'static str],
    /// Last octets, `None`: the set is not used.
    cluster: Option<&'static [u8]>,
    local: Option<&'static [u8]>,
    any: bool,
}

const CLUSTER: Uses = Uses { cluster: true, local: false };
const LOCAL: Uses = Uses { cluster: false, local: true };
const BOTH: Uses = Uses { cluster: true, local: true };

const ZONES: &[&str] = &["3 R z:a", "4 R z:b", "5 R z:c", "6 R z:a"];
const NODES: &[&str] =
    &["3 R z:a n:node-1", "4 R z:b n:node-2", "5 R z:c n:node-3", "6 R z:a n:node-4"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { number: 1, what: "all hinted, some for this zone", node: NODE, zone: Some("a"),
        uses: CLUSTER, endpoints: ZONES, cluster: Some(&[3, 6]), local: None, any: true },
    Case { number: 2, what: "eTP Local: the local set ignores topology", node: NODE, zone: Some("a"),
        uses: BOTH, endpoints: &["3 RL z:a", "4 RL z:b", "5 R z:c", "6 R z:a"],
        cluster: Some(&[3, 6]), local: Some(&[3, 4]), any: true },
    Case { number: 3, what: "iTP Local: the local set ignores topology", node: NODE, zone: Some("a"),
        uses: BOTH, endpoints: &["3 RL z:a", "4 RL z:b", "5 R z:c", "6 R z:a"],
        cluster: Some(&[3, 6]), local: Some(&[3, 4]), any: true },
    Case { number: 4, what: "the node has no zone", node: NODE, zone: None,
        uses: CLUSTER, endpoints: &["3 R z:a"], cluster: Some(&[3]), local: None, any: true },
    Case { number: 5, what: "the node has an empty zone", node: NODE, zone: Some(""),
        uses: CLUSTER, endpoints: &["3 R z:a"], cluster: Some(&[3]), local: None, any: true },
    Case { number: 6, what: "nothing for this zone", node: NODE, zone: Some("b"),
        uses: CLUSTER, endpoints: &["3 R z:a"], cluster: Some(&[3]), local: None, any: true },
    Case { number: 7, what: "one of the zone is not ready", node: NODE, zone: Some("a"),
        uses: CLUSTER, endpoints: &["3 R z:a", "4 R z:b", "5 R z:c", "6 N z:a"],
        cluster: Some(&[3]), local: None, any: true },
    Case { number: 8, what: "none of the zone is ready", node: NODE, zone: Some("a"),
        uses: CLUSTER, endpoints: &["3 N z:a", "4 R z:b", "5 R z:c", "6 N z:a"],
        cluster: Some(&[4, 5]), local: None, any: true },
    Case { number: 9, what: "a ready one has no hint", node: NODE, zone: Some("a"),
        uses: CLUSTER, endpoints: &["3 R z:a", "4 R z:b", "5 R", "6 R z:a"],
        cluster: Some(&[3, 4, 5, 6]), local: None, any: true },
    Case { number: 10, what: "several zones in a hint", node: NODE, zone: Some("c"),
        uses: CLUSTER, endpoints: &["3 R z:a,b,c", "4 R z:b,c", "5 R z:b,d", "6 R z:c"],
        cluster: Some(&[3, 4, 6]), local: None, any: true },
    Case { number: 12, what: "one for this node", node: "node-1", zone: Some("a"),
        uses: CLUSTER, endpoints: NODES, cluster: Some(&[3]), local: None, any: true },
    Case { number: 13, what: "node hints, a ready one has none", node: "node-1", zone: Some("a"),
        uses: CLUSTER,
        endpoints: &["3 R z:a n:node-1", "4 R", "5 R z:c n:node-3", "6 R z:a n:node-4"],
        cluster: Some(&[3, 4, 5, 6]), local: None, any: true },
    Case { number: 14, what: "node hints, none for this node", node: "node-0", zone: Some("a"),
        uses: CLUSTER, endpoints: NODES, cluster: Some(&[3, 6]), local: None, any: true },
    Case { number: 15, what: "topology and localness disagree", node: NODE, zone: Some("a"),
        uses: BOTH, endpoints: &["0 RL z:a", "1 RL z:b", "2 R z:a", "3 R z:b"],
        cluster: Some(&[0, 2]), local: Some(&[0, 1]), any: true },
    Case { number: 16, what: "iTP Local, no endpoints", node: NODE, zone: None,
        uses: LOCAL, endpoints: &[], cluster: None, local: Some(&[]), any: false },
    Case { number: 17, what: "iTP Local, all remote", node: NODE, zone: None,
        uses: LOCAL, endpoints: &["0 R", "1 R"], cluster: None, local: Some(&[]), any: true },
    Case { number: 18, what: "iTP Local, all local", node: NODE, zone: None,
        uses: LOCAL, endpoints: &["0 RL", "1 RL"], cluster: None, local: Some(&[0, 1]), any: true },
    Case { number: 19, what: "iTP Local, some local", node: NODE, zone: None,
        uses: LOCAL, endpoints: &["0 RL", "1 R"], cluster: None, local: Some(&[0]), any: true },
    Case { number: 20, what: "none ready", node: NODE, zone: None,
        uses: CLUSTER, endpoints: &["0 N", "1 N"], cluster: Some(&[]), local: None, any: false },
    Case { number: 21, what: "some ready", node: NODE, zone: None,
        uses: CLUSTER, endpoints: &["0 N", "1 R"], cluster: Some(&[1]), local: None, any: true },
    Case { number: 22, what: "all terminating", node: NODE, zone: None,
        uses: CLUSTER, endpoints: &["0 TL", "1 T"], cluster: Some(&[0, 1]), local: None, any: true },
    Case { number: 23, what: "iTP Local, eTP Cluster", node: NODE, zone: None,
        uses: BOTH, endpoints: &["0 RL", "1 R"], cluster: Some(&[0, 1]), local: Some(&[0]), any: true },
    Case { number: 24, what: "iTP Cluster, eTP Local", node: NODE, zone: None,
        uses: BOTH, endpoints: &["0 RL", "1 R"], cluster: Some(&[0, 1]), local: Some(&[0]), any: true },
    Case { number: 25, what: "both Local", node: NODE, zone: None,
        uses: BOTH, endpoints: &["0 RL", "1 R"], cluster: Some(&[0, 1]), local: Some(&[0]), any: true },
    Case { number: 26, what: "both Local, all remote", node: NODE, zone: None,
        uses: BOTH, endpoints: &["0 R", "1 R"], cluster: Some(&[0, 1]), local: Some(&[]), any: true },
    Case { number: 27, what: "both Local, all remote and terminating", node: NODE, zone: None,
        uses: BOTH, endpoints: &["0 T", "1 T"], cluster: Some(&[0, 1]), local: Some(&[]), any: true },
    Case { number: 28, what: "eTP Local falls back on its own", node: NODE, zone: None,
        uses: BOTH, endpoints: &["0 R", "1 NL", "2 TL", "3 T"],
        cluster: Some(&[0]), local: Some(&[2]), any: true },
    Case { number: 29, what: "eTP Local without access from outside", node: NODE, zone: None,
        uses: CLUSTER, endpoints: &["0 R", "1 RL"], cluster: Some(&[0, 1]), local: None, any: true },
    Case { number: 30, what: "iTP Local, internal only", node: NODE, zone: None,
        uses: LOCAL, endpoints: &["0 R", "1 RL"], cluster: None, local: Some(&[1]), any: true },
    Case { number: 31, what: "no endpoints", node: NODE, zone: None,
        uses: CLUSTER, endpoints: &[], cluster: Some(&[]), local: None, any: false },
    Case { number: 32, what: "one that is nothing", node: NODE, zone: Some("a"),
        uses: CLUSTER, endpoints: &["0 N"], cluster: Some(&[]), local: None, any: false },
];

fn parse(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let addr = format!("10.1.2.{}", words.next().unwrap());
    let mut parsed = endpoint(&addr, words.next().unwrap());
    for word in words {
        let (kind, names) = word.split_once(':').unwrap();
        let names = names.split(',').map(Box::from).collect();
        match kind {
            "z" => parsed.zone_hints = names,
            _ => parsed.node_hints = names,
        }
    }
    parsed
}

fn octets(set: &BackendSet) -> Vec<u8> {
    let last = |backend: &Backend| match backend.addr {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(_) => unreachable!(),
    };
    set.backends.iter().map(last).collect()
}

#[test]
fn top_categorize_endpoints() {
    for case in CASES {
        let endpoints: Vec<_> = case.endpoints.iter().map(|text| parse(text)).collect();
        let candidates: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                let local = endpoint.node.as_deref() == Some(NODE);
                let backend = Backend { addr: endpoint.addr, port: 80, local };
                Candidate { backend, endpoint }
            })
            .collect();
        let got = categorize(&candidates, case.uses, case.node, case.zone);
        let name = format!("case {}: {}", case.number, case.what);
        assert_eq!(octets(&got.cluster), case.cluster.unwrap_or_default(), "{name}");
        assert_eq!(got.local.as_ref().map(octets).as_deref(), case.local, "{name}");
        assert_eq!(got.any, case.any, "{name}");
        if let Some(local) = got.local {
            let verdict = if case.any { EmptyVerdict::Drop } else { EmptyVerdict::Reject };
            assert_eq!(local.when_empty, verdict, "{name}");
        }
    }
    let numbers: BTreeSet<_> = CASES.iter().map(|case| case.number).collect();
    assert_eq!(numbers.len(), 31);
}

#[test]
fn top_13_families_and_ports_have_their_own_hints() {
    let mut hinted = endpoint("10.1.2.3", "R");
    hinted.zone_hints = ["a".into()].into();
    let mut other = endpoint("10.1.2.4", "R");
    other.zone_hints = ["b".into()].into();
    let slices = [
        slice("v4", "web", 80, &[hinted, other]),
        slice("v6", "web", 80, &[endpoint("fd00::3", "R"), endpoint("fd00::4", "R")]),
    ];
    let web = service("web", &["10.96.0.1", "fd00:10:96::1"]);
    let none = BTreeSet::new();
    let context = PlanContext {
        node_name: NODE,
        zone: Some("a"),
        local_addresses: &none,
        node_addresses: &[],
        algorithm: Algorithm::RoundRobin,
    };
    let plans = plan_service(&web, slices.iter(), &context);
    let sizes: Vec<_> = plans.iter().map(|plan| plan.cluster.backends.len()).collect();
    assert_eq!(sizes, [1, 2]);
}
