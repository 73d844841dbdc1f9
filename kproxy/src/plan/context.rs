//! What the plan of every Service rests on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::Algorithm;

/// What the plan knows of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanContext<'a> {
    /// Name of this node; endpoints with exactly this `nodeName` are local (EPS-08).
    pub node_name: &'a str,
    /// Zone of this node.
    pub zone: Option<&'a str>,
    /// Addresses bound to this node's devices.
    pub local_addresses: &'a BTreeSet<IpAddr>,
    /// Addresses of this node's Node object (NODE-02).
    pub node_addresses: &'a [IpAddr],
    /// How backends are picked where a Service does not say.
    pub algorithm: Algorithm,
}
