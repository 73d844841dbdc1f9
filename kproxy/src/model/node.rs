//! The node that kproxy runs on.

use std::net::IpAddr;

use super::Family;

/// What is wanted of the own Node object: by the plan (NODE-01, NODE-02, NODE-04), and by load balancers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Node {
    /// Zone of the node; `None` without the label or with an empty one: no same-zone routing.
    pub zone: Option<String>,
    /// The node's own addresses: the primary one, and the first one of the other family.
    pub addresses: Vec<IpAddr>,
    /// It is being deleted, or the cluster autoscaler is about to (HZ-06).
    pub leaving: bool,
}

impl Node {
    /// The node's address of a family.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(ip) == family)
    }
}
