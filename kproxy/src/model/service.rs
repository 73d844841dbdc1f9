//! Services.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::{Family, Protocol};

/// Namespace and name of a Service.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ServiceName {
    /// From its two parts.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`
impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `spec.type`. ExternalName has no entry: such a Service is none of kproxy's (SEL-02).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ServiceType {
    /// ClusterIP.
    #[default]
    ClusterIp,
    /// NodePort.
    NodePort,
    /// LoadBalancer.
    LoadBalancer,
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum TrafficPolicy {
    /// Every usable endpoint.
    #[default]
    Cluster,
    /// Endpoints on this node.
    Local,
}

/// How a backend is picked for a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// Each in its turn.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The one of two random ones that has fewer open connections.
    LeastConnections,
    /// The one that a hash of the client leads to, on every node the same.
    Maglev,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::RoundRobin, Self::Random, Self::LeastConnections, Self::Maglev];

    /// The word that people write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::LeastConnections => "least-connections",
            Self::Maglev => "maglev",
        }
    }

    /// From that word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A Service that has a cluster IP and at least one usable port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// `metadata.creationTimestamp` in seconds since 1970; `None` in a folder of manifests. Of two
    /// Services that want the same frontend the older one gets it (VER-19).
    pub created: Option<i64>,
    /// `spec.type`; decides only what `externalTrafficPolicy` means (SVC-08, SVC-12).
    pub kind: ServiceType,
    /// Cluster IPs: one, or one a family (SEL-03).
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`, both families.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP or none (SVC-07), both families.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, both families.
    pub source_ranges: Vec<IpNet>,
    /// `spec.internalTrafficPolicy` (SVC-13).
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy` as written; see [`Self::external_policy`].
    pub external_policy_written: TrafficPolicy,
    /// `spec.healthCheckNodePort` as written; see [`Self::health_check_port`].
    pub health_check_node_port: Option<NonZeroU16>,
    /// Session affinity timeout in seconds, for `sessionAffinity: ClientIP` (SVC-11).
    pub affinity_seconds: Option<u32>,
    /// The annotation `kproxy.dev/lb-algorithm`; `None`: what the node does by default.
    pub algorithm: Option<Algorithm>,
    /// Ports, at least one; each (name, protocol) at most once.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServicePort {
    /// Name, empty for the unnamed port. Joins the port with those of the EndpointSlices.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port that clients dial.
    pub port: NonZeroU16,
    /// NodePort, used whatever the type (SVC-02).
    pub node_port: Option<NonZeroU16>,
}

impl Service {
    /// The cluster IP of a family (SEL-03).
    pub(crate) fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips.iter().copied().find(|ip| Family::of(ip) == family)
    }

    /// `externalTrafficPolicy` as it counts: Local needs a Service that the API calls externally
    /// accessible (SVC-12; `ExternalPolicyLocal` in kubernetes `pkg/api/v1/service/util.go`).
    pub(crate) fn external_policy(&self) -> TrafficPolicy {
        let accessible = match self.kind {
            ServiceType::NodePort | ServiceType::LoadBalancer => true,
            ServiceType::ClusterIp => !self.external_ips.is_empty(),
        };
        if accessible { self.external_policy_written } else { TrafficPolicy::Cluster }
    }

    /// Whether load balancers ask this node for local endpoints (SVC-14).
    pub(crate) fn has_health_check(&self) -> bool {
        self.kind == ServiceType::LoadBalancer && self.external_policy() == TrafficPolicy::Local
    }

    /// The port on which they ask.
    pub(crate) fn health_check_port(&self) -> Option<NonZeroU16> {
        self.health_check_node_port.filter(|_| self.has_health_check())
    }

    /// Whether load-balancer addresses of a family are open to some senders only. A range of
    /// length zero opens them to all (SVC-10), and ranges of one family leave the other open
    /// (LBR-08).
    pub(crate) fn restricts_sources(&self, family: Family) -> bool {
        let mut ranges =
            self.source_ranges.iter().filter(|net| Family::of(&net.addr()) == family).peekable();
        ranges.peek().is_some() && ranges.all(|net| net.prefix_len() != 0)
    }
}
