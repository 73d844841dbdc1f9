//! Which of the node's addresses NodePorts answer on (`--nodeport-addresses`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Node, Problem};

/// The setting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum NodePortAddresses {
    /// Every address of the node, loopback included.
    #[default]
    All,
    /// Those in these ranges; a family without a range has all of its addresses (NP-02).
    Ranges(Vec<IpNet>),
    /// The node's primary address of each family.
    Primary,
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
        match self {
            Self::All => true,
            Self::Ranges(ranges) => {
                let mut ranges = ranges.iter().filter(|range| is_of(range, family)).peekable();
                ranges.peek().is_none() || ranges.any(|range| range.prefix_len() == 0)
            }
            Self::Primary => false,
        }
    }

    /// What is wrong with the setting on this node.
    pub(crate) fn problem(&self, node: &Node) -> Option<Problem> {
        let usable = |family| node.address(family).is_some_and(|ip| !ip.is_loopback());
        let unknown = !usable(Family::V4) && !usable(Family::V6);
        (*self == Self::Primary && unknown).then(|| {
            Problem::new(
                "--nodeport-addresses",
                "is primary, and the own Node object has no address: NodePorts answer nowhere",
                "give the Node an InternalIP, see --hostname-override, or give address ranges",
            )
        })
    }

    fn takes(&self, ip: &IpAddr, node: &Node) -> bool {
        let family = Family::of(ip);
        match self {
            Self::Ranges(ranges) if !self.takes_all(family) => {
                ranges.iter().any(|range| range.contains(ip))
            }
            Self::All | Self::Ranges(_) => true,
            Self::Primary => !ip.is_loopback() && node.address(family) == Some(*ip),
        }
    }
}

fn is_of(range: &IpNet, family: Family) -> bool {
    Family::of(&range.addr()) == family
}
