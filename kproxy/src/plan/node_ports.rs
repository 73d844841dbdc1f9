//! Which of the node's addresses NodePorts answer on (`--nodeport-addresses`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Node, Problem};

/// The setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NodePortAddresses {
    /// Addresses in these ranges; a family without a range has all of its addresses (NP-02), unless
    /// `primary` is set.
    pub(crate) ranges: Vec<IpNet>,
    /// The node's primary address of each family.
    pub(crate) primary: bool,
    /// Whether loopback addresses count.
    pub(crate) loopback: bool,
}

/// Every address of the node, loopback included.
impl Default for NodePortAddresses {
    fn default() -> Self {
        Self { ranges: Vec::new(), primary: false, loopback: true }
    }
}

impl NodePortAddresses {
    /// The addresses, out of `local`, the node's own.
    ///
    /// Where kube-proxy finds no primary address its list is empty and an empty list means every
    /// address (NP-04). Here it means none: who asks for one address must not open them all.
    pub(crate) fn choose(&self, local: &BTreeSet<IpAddr>, node: &Node) -> BTreeSet<IpAddr> {
        local.iter().copied().filter(|ip| self.takes(ip, node)).collect()
    }

    /// Whether every address of a family is taken, also those that the node does not have yet.
    pub(crate) fn takes_all(&self, family: Family) -> bool {
        self.loopback && self.is_open(family)
    }

    /// Whether a family is not restricted to some addresses.
    pub(crate) fn is_open(&self, family: Family) -> bool {
        let mut ranges = self.ranges.iter().filter(|range| is_of(range, family)).peekable();
        (ranges.peek().is_none() && !self.primary) || ranges.any(|range| range.prefix_len() == 0)
    }

    /// What is wrong with the setting on this node.
    pub(crate) fn problem(&self, node: &Node) -> Option<Problem> {
        let usable = |family| node.address(family).is_some_and(|ip| !ip.is_loopback());
        let unknown = !usable(Family::V4) && !usable(Family::V6);
        (self.primary && self.ranges.is_empty() && unknown).then(|| {
            Problem::new(
                "--nodeport-addresses",
                "is primary, and the own Node object has no address: NodePorts answer nowhere",
                "give the Node an InternalIP, see --hostname-override, or give address ranges",
            )
        })
    }

    fn takes(&self, ip: &IpAddr, node: &Node) -> bool {
        let family = Family::of(ip);
        let is_primary = || self.primary && !ip.is_loopback() && node.address(family) == Some(*ip);
        let counts = self.loopback || !ip.is_loopback();
        counts
            && (self.is_open(family)
                || self.ranges.iter().any(|range| range.contains(ip))
                || is_primary())
    }
}

fn is_of(range: &IpNet, family: Family) -> bool {
    Family::of(&range.addr()) == family
}
