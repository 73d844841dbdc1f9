//! What is measured: variants, paths and works.

use std::{fmt, net::SocketAddr};

use anyhow::Result;
use kproxy_lab::{
    BULK_BYTES, Family, Lab, Load, Work,
    manifest::{Service, Slice},
};
use serde_json::{Value, json};

/// Who handles Services while something is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Variant {
    /// Nobody: the backend is dialled.
    Direct,
    /// kube-proxy in nftables mode.
    Nftables,
    /// kube-proxy in iptables mode.
    Iptables,
    /// kproxy.
    Kproxy,
}

impl Variant {
    /// All of them, in the order of the columns.
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::Nftables, Self::Iptables, Self::Kproxy];
}

/// A variant in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    pub(super) variant: Variant,
    pub(super) round: usize,
}

impl Turn {
    /// Port of the servers that are reached in this turn. Each has its own: a server's socket in
    /// TIME_WAIT refuses the same client port for a second when sequence numbers and timestamps
    /// were made for another connection, as they are with and without a proxy, and after a proxy
    /// has been cleaned away together with what it knew of ports in use.
    pub(super) fn port(self) -> u16 {
        8090 + (self.round * Variant::ALL.len()) as u16 + self.variant as u16
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Kproxy => "kproxy",
        })
    }
}

/// A way from a client to a backend.
pub(super) struct Path {
    /// In words.
    pub(super) name: &'static str,
    /// The place that dials.
    pub(super) from: &'static str,
    /// Last part of its ClusterIPs, and its NodePort.
    numbers: (u8, u16),
    /// The place that answers.
    pub(super) backend: &'static str,
    /// The NodePort of n1 is dialled, not the ClusterIP.
    pub(super) node_port: bool,
}

/// The paths.
pub(super) const PATHS: [Path; 4] = [
    Path { node_port: false, ..path("pod→ClusterIP, backend on the node", "n1/a", &NEAR) },
    Path { node_port: false, ..path("pod→ClusterIP, backend elsewhere", "n1/a", &FAR) },
    Path { node_port: true, ..path("outside→NodePort, backend on the node", "client", &NEAR) },
    Path { node_port: true, ..path("outside→NodePort, backend elsewhere", "client", &FAR) },
];

/// Service, numbers, backend.
type Target = (&'static str, (u8, u16), &'static str);
const NEAR: Target = ("near", (10, 30090), "n1/b");
const FAR: Target = ("far", (11, 30091), "n2/a");

const fn path(name: &'static str, from: &'static str, target: &Target) -> Path {
    let (_, numbers, backend) = *target;
    Path { name, from, numbers, backend, node_port: false }
}

impl Path {
    /// What is dialled.
    pub(super) fn address(&self, lab: &Lab, turn: Turn) -> Result<SocketAddr> {
        if turn.variant == Variant::Direct {
            return Ok(lab.place(self.backend)?.at(Family::V4, turn.port()));
        }
        if self.node_port {
            return Ok(lab.node("n1").at(Family::V4, self.numbers.1));
        }
        Ok(SocketAddr::from(([10, 96, 0, self.numbers.0], 80)))
    }
}

/// Places that answer.
pub(super) const BACKENDS: [&str; 2] = [NEAR.2, FAR.2];

/// The Services of all paths, with the slices of a turn.
pub(super) fn objects(lab: &Lab, turn: Turn) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    let port = turn.port();
    for (name, (host, node_port), backend) in [NEAR, FAR] {
        let service = Service::new(name)
            .cluster_ips(&format!("10.96.0.{host}"), &format!("fd00:10:96::{host}"))
            .of_type("NodePort")
            .spec(json!({"externalTrafficPolicy": "Cluster"}))
            .port("tcp", "TCP", 80, port)
            .node_port(node_port)
            .port("udp", "UDP", 80, port)
            .node_port(node_port);
        objects.push(service.into());
        let backend = lab.place(backend)?;
        objects.extend(Family::ALL.map(|family| {
            let slice = Slice::of(name, family).port("tcp", "TCP", port).port("udp", "UDP", port);
            slice.pod(&backend).into()
        }));
    }
    Ok(objects)
}

/// A work, its name and the unit of its figures; less is better in all of them.
pub(super) const WORKS: [(Work, &str, &str); 4] = [
    (Work::Connect, "connect/request/close", "µs"),
    (Work::PingTcp, "ping-pong TCP", "µs"),
    (Work::PingUdp, "ping-pong UDP", "µs"),
    (Work::BulkDown, "bulk TCP", "µs/MiB"),
];

/// Runs one load; its figure.
pub(super) fn measure(lab: &Lab, path: &Path, work: Work, load: Load) -> Result<f64> {
    let report = lab.place(path.from)?.load(load)?;
    let microseconds = report.per_operation() / 1000.0;
    Ok(match work {
        Work::BulkDown | Work::BulkUp => microseconds / (BULK_BYTES as f64 / f64::from(1 << 20)),
        Work::Connect | Work::PingTcp | Work::PingUdp | Work::PingUdpUnconnected => microseconds,
    })
}
