//! What the kernel maps should hold, in the plan's own words.

use std::net::IpAddr;

use ipnet::IpNet;

pub use crate::model::{Algorithm, Family, Protocol};

/// Identity of a service port in the maps: kube-proxy's service port name (namespace, name, port
/// name, protocol; `pkg/proxy/types.go`) and the family.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServicePortId {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port, empty for the unnamed one.
    pub port: String,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Family of the frontends and backends.
    pub family: Family,
}

impl ServicePortId {
    /// `namespace/name:port`, or `namespace/name` for the unnamed port.
    pub fn text(&self) -> String {
        if self.port.is_empty() {
            format!("{}/{}", self.namespace, self.name)
        } else {
            format!("{}/{}:{}", self.namespace, self.name, self.port)
        }
    }
}

impl std::fmt::Display for ServicePortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/IPv{}", self.text(), self.protocol.name(), self.family.number())
    }
}

/// A backend: an endpoint's address and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Backend {
    /// Endpoint address.
    pub addr: IpAddr,
    /// Endpoint port.
    pub port: u16,
    /// The endpoint runs on this node.
    pub local: bool,
}

/// What happens to new connections of a set without backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmptyVerdict {
    /// Refuse: no endpoint anywhere (VER-01).
    Reject,
    /// Drop: a Local policy and none on this node (VER-04, VER-07).
    Drop,
}

/// One of the two backend sets of a service port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendSet {
    /// Sorted and free of duplicates.
    pub backends: Vec<Backend>,
    /// Applies while `backends` is empty.
    pub when_empty: EmptyVerdict,
}

/// Which set of the service port a class of senders gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Every usable endpoint.
    Cluster,
    /// Endpoints on this node.
    Local,
}

/// Kind of a frontend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FrontendKind {
    /// ClusterIP.
    ClusterIp,
    /// NodePort; its address is [`Family::unspecified`].
    NodePort,
    /// externalIP.
    ExternalIp,
    /// Load-balancer ingress address.
    LoadBalancer,
}

/// Who may open connections to a frontend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sources {
    /// Everybody.
    All,
    /// Those whom [`ServicePortPlan::source_ranges`] hold (LBR-02).
    Ranges {
        /// This node is among them.
        node: bool,
    },
}

/// What clients dial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frontend {
    /// Kind.
    pub kind: FrontendKind,
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// Set for pods and this node.
    pub internal: Scope,
    /// Set for senders outside the cluster.
    pub external: Scope,
    /// Who may.
    pub sources: Sources,
}

/// One service port of one family, ready for the maps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePortPlan {
    /// Identity.
    pub id: ServicePortId,
    /// Frontends, sorted by kind, address, port.
    pub frontends: Vec<Frontend>,
    /// The cluster-wide set.
    pub cluster: BackendSet,
    /// The local set; `None` when no frontend uses it.
    pub local: Option<BackendSet>,
    /// UDP: endpoints in neither set that still serve (terminating, or left out by a policy or by
    /// hints). What flows to them already stays with them (CT-05). Sorted.
    pub serving: Vec<(IpAddr, u16)>,
    /// When the Service was made, in seconds since 1970; decides over frontends that two want.
    pub created: Option<i64>,
    /// Session affinity timeout in seconds (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// How backends are picked.
    pub algorithm: Algorithm,
    /// Who may dial the frontends that are open to some sources only. Sorted, no range within
    /// another; empty when there is no such frontend.
    pub source_ranges: Vec<IpNet>,
}

/// One step for the data path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The service port is new or differs from what was planned before.
    Set(ServicePortPlan),
    /// The service port is gone, with all its frontends.
    Remove(ServicePortId),
}

impl Change {
    /// The service port that changes.
    pub const fn id(&self) -> &ServicePortId {
        match self {
            Self::Set(plan) => &plan.id,
            Self::Remove(id) => id,
        }
    }
}
