//! The node that kproxy runs on.

use std::net::IpAddr;

/// What the plan wants to know of the own Node object (NODE-01, NODE-04).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Zone of the node; `None` without the label or with an empty one: no same-zone routing.
    pub zone: Option<String>,
    /// Its address of each family that it has one of (NODE-02).
    pub addresses: Vec<IpAddr>,
}
