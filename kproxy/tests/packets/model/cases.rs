//! Random Services and random packets. Few addresses and ports, so that connections get in each
//! other's way.

use std::net::{IpAddr, SocketAddr};

use kproxy_common::net::proto::{SCTP, TCP, UDP};
use kproxy_common::service::{frontend_flags as kind, service_flags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

/// Where a packet is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hook {
    Ingress,
    Egress,
    PodIngress,
    PodEgress,
}

impl Hook {
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "kp_ingress",
            Self::Egress => "kp_egress",
            Self::PodIngress => "kp_pod_ingress",
            Self::PodEgress => "kp_pod_egress",
        }
    }
}

/// What a packet means to its connection: of TCP and SCTP, UDP datagrams are all alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Open,
    OpenAnswer,
    Data,
    Fin,
    Rst,
}

/// One packet: both ends and the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Ends {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) proto: u8,
}

impl Ends {
    pub(super) const fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, proto: self.proto }
    }
}

/// A backend set: what the harness publishes.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) backends: Vec<&'static str>,
    /// Of an empty set.
    pub(super) verdict: u32,
}

/// A service port with its frontends; `internal` and `external` are 0 for the cluster-wide set and 1
/// for the one of this node.
#[derive(Clone, Debug)]
pub(super) struct Frontend {
    pub(super) at: SocketAddr,
    pub(super) flags: u32,
    pub(super) internal: u32,
    pub(super) external: u32,
}

#[derive(Clone, Debug)]
pub(super) struct ServicePort {
    pub(super) v6: bool,
    pub(super) proto: u8,
    pub(super) frontends: Vec<Frontend>,
    pub(super) sets: [Set; 2],
    pub(super) affinity: u32,
    pub(super) algorithm: u32,
    /// Source ranges, as they are published and as the addresses that they hold.
    pub(super) ranges: Vec<(&'static str, u8)>,
}

/// A choice among what there is when the step is taken.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A client sends to what may be a frontend.
    Dial { hook: Hook, client: Index, port: u16, what: Index, act: Act },
    /// A packet of an open flow: the client's, the backend's, or the client's as it goes on.
    Flow { hook: Hook, flow: Index, way: u8, act: Act },
    /// A client sends to a backend itself.
    Direct { hook: Hook, client: Index, port: u16, backend: Index, act: Act },
    /// Any bytes as an IPv4 or IPv6 packet.
    Junk { hook: Hook, v6: bool, bytes: Vec<u8> },
    /// A packet to a frontend that is cut off behind its IP header.
    Cut { hook: Hook, client: Index, what: Index, left: Index },
    /// Nobody sends anything for some seconds.
    Rest,
    /// Endpoints come and go.
    Publish { service_port: Index, local: bool, set: (u8, u32, Vec<usize>) },
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) service_ports: Vec<ServicePort>,
    pub(super) steps: Vec<Step>,
    /// The programs change the source for backends elsewhere; else netfilter does.
    pub(super) own_ports: bool,
    /// No hook gives sockets of the node a backend.
    pub(super) by_packets: bool,
}

/// Address of the node, and those of clients: two outside, a pod of this node, a pod of another.
pub(super) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(super) const CLIENTS: [[&str; 4]; 2] = [
    ["203.0.113.9", "198.51.100.9", "10.244.1.7", "10.244.4.7"],
    ["2001:db8:9::9", "2001:db8:77::9", "fd00:10:244:1::7", "fd00:10:244:4::7"],
];
/// Pod ranges.
pub(super) const PODS: [(&str, u8); 2] = [("10.244.0.0", 16), ("fd00:10:244::", 56)];
/// The third is the client among the pods.
pub(super) const BACKENDS: [[&str; 5]; 2] = [
    [
        "L10.244.1.5:8080",
        "L10.244.1.6:8080",
        "L10.244.1.7:8080",
        "10.244.2.5:8080",
        "10.244.3.5:8080",
    ],
    [
        "L[fd00:10:244:1::5]:8080",
        "L[fd00:10:244:1::6]:8080",
        "L[fd00:10:244:1::7]:8080",
        "[fd00:10:244:2::5]:8080",
        "[fd00:10:244:3::5]:8080",
    ],
];
/// Ranges that hold some of the clients.
const RANGES: [[(&str, u8); 3]; 2] = [
    [("203.0.113.0", 24), ("198.51.100.9", 32), ("10.244.0.0", 16)],
    [("2001:db8:9::", 48), ("2001:db8:77::9", 128), ("fd00:10:244::", 56)],
];

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn any_hook() -> impl Strategy<Value = Hook> {
    prop_oneof![
        4 => Just(Hook::Ingress),
        3 => Just(Hook::PodIngress),
        3 => Just(Hook::Egress),
        2 => Just(Hook::PodEgress),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Open),
        2 => Just(Act::OpenAnswer),
        3 => Just(Act::Data),
        3 => Just(Act::Fin),
        1 => Just(Act::Rst),
    ]
}

/// Number of backends, verdict and an order of the backends.
fn any_set() -> impl Strategy<Value = (u8, u32, Vec<usize>)> {
    (0..5u8, 0..2u32, Just(vec![0, 1, 2, 3, 4]).prop_shuffle())
}

pub(super) fn set(v6: bool, (count, verdict, order): &(u8, u32, Vec<usize>)) -> Set {
    let chosen = order.iter().take(usize::from(*count));
    Set { backends: chosen.map(|i| BACKENDS[usize::from(v6)][*i]).collect(), verdict: *verdict }
}

fn any_service_port(number: u16) -> impl Strategy<Value = ServicePort> {
    let frontends = subsequence(vec![kind::CLUSTER_IP, kind::NODE_PORT, kind::LOAD_BALANCER], 1..4);
    let sets = (vec((0..2u32, 0..2u32), 3), any_set(), any_set());
    let proto = prop_oneof![2 => Just(TCP), 2 => Just(UDP), 1 => Just(SCTP)];
    let affinity = prop_oneof![2 => Just(0u32), 1 => Just(10_800)];
    let algorithm = prop_oneof![
        3 => Just(0),
        1 => Just(service_flags::RANDOM),
        1 => Just(service_flags::LEAST_CONNECTIONS),
        1 => Just(service_flags::MAGLEV),
    ];
    let ranges = prop::option::of(subsequence(vec![0usize, 1, 2], 0..3));
    (any::<bool>(), proto, frontends, sets, affinity, algorithm, ranges).prop_map(
        move |(v6, proto, kinds, (scopes, cluster, local), affinity, algorithm, ranges)| {
            // Service ports share an address now and then.
            let shared = number / 2;
            let frontend = |(flags, (internal, external)): (u32, (u32, u32))| {
                let (at, port) = match (flags, v6) {
                    (kind::CLUSTER_IP, false) => (format!("10.96.0.{}", 10 + shared), 80 + number),
                    (kind::CLUSTER_IP, true) => {
                        (format!("fd00:10:96::{}", 10 + shared), 80 + number)
                    }
                    (kind::NODE_PORT, false) => ("0.0.0.0".to_owned(), 30_080 + number),
                    (kind::NODE_PORT, true) => ("::".to_owned(), 30_080 + number),
                    (_, false) => (format!("203.0.113.{}", 20 + shared), 80 + number),
                    (_, true) => (format!("2001:db8:5::{}", 20 + shared), 80 + number),
                };
                let restricted = flags == kind::LOAD_BALANCER && ranges.is_some();
                let extra = if restricted { kind::SOURCE_RANGES } else { 0 };
                Frontend { at: (ip(&at), port).into(), flags: flags | extra, internal, external }
            };
            let ranges = ranges.iter().flatten().map(|i| RANGES[usize::from(v6)][*i]).collect();
            ServicePort {
                v6,
                proto,
                frontends: kinds.into_iter().zip(scopes).map(frontend).collect(),
                sets: [set(v6, &cluster), set(v6, &local)],
                affinity,
                algorithm,
                ranges,
            }
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = || (any::<Index>(), 40_000..40_002u16);
    let open = prop_oneof![4 => Just(Act::Open), 1 => any_act()];
    let dialling =
        prop_oneof![3 => Just(Hook::Ingress), 2 => Just(Hook::PodIngress), 2 => any_hook()];
    prop_oneof![
        6 => (dialling, client(), any::<Index>(), open)
            .prop_map(|(hook, (client, port), what, act)| Step::Dial { hook, client, port, what, act }),
        9 => (any_hook(), any::<Index>(), 0..5u8, any_act())
            .prop_map(|(hook, flow, way, act)| Step::Flow { hook, flow, way, act }),
        2 => (any_hook(), client(), any::<Index>(), any_act()).prop_map(
            |(hook, (client, port), backend, act)| Step::Direct { hook, client, port, backend, act },
        ),
        1 => (any_hook(), any::<bool>(), vec(any::<u8>(), 40..90))
            .prop_map(|(hook, v6, bytes)| Step::Junk { hook, v6, bytes }),
        1 => (any_hook(), any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(hook, client, what, left)| Step::Cut { hook, client, what, left }),
        1 => Just(Step::Rest),
        2 => (any::<Index>(), any::<bool>(), any_set())
            .prop_map(|(service_port, local, set)| Step::Publish { service_port, local, set }),
    ]
}

pub(super) fn any_case() -> impl Strategy<Value = Case> {
    let service_ports = prop_oneof![
        any_service_port(0).prop_map(|a| vec![a]),
        (any_service_port(0), any_service_port(1)).prop_map(|(a, b)| vec![a, b]),
        (any_service_port(0), any_service_port(1), any_service_port(2))
            .prop_map(|(a, b, c)| vec![a, b, c]),
    ];
    let settings = (any::<bool>(), any::<bool>());
    (service_ports, vec(any_step(), 5..40), settings).prop_map(
        |(service_ports, steps, (own_ports, by_packets))| Case {
            service_ports,
            steps,
            own_ports,
            by_packets,
        },
    )
}
