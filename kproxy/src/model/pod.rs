//! Pods of namespaces that are opted out of the socket path.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Namespace and name of a Pod.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PodName {
    /// From its two parts.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`
impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Pod with a network namespace of its own that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pod {
    /// Namespace and name.
    pub name: PodName,
    /// The node that it is on; `None`: nobody has said.
    pub node: Option<String>,
    /// Its addresses; none while it is being started.
    pub addresses: BTreeSet<IpAddr>,
}
