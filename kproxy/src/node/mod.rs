//! What kproxy knows of and changes on the node itself: its name, devices, addresses, cgroups, bpffs and
//! one nftables table. Nothing here touches BPF maps or links.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub mod bpffs;
pub mod cgroup;
pub mod name;
pub mod namespaces;
pub mod netns;
pub mod nft;
mod pods;
pub mod roles;
mod rtnl;
pub mod source_ports;
pub mod sources;
pub mod watch;

pub use self::sources::Sources;
use crate::model::Problem;

/// Index of the loopback device in every network namespace (include/net/flow.h).
pub const LOOPBACK: u32 = 1;

/// A device that gets the tc programs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Device {
    /// Name, for people and pins.
    pub name: String,
    /// Index, for attaching.
    pub index: u32,
    /// Packets start with an Ethernet header. Without it (tun, WireGuard, IPIP) they start at IP.
    pub ethernet: bool,
}

/// What the node looks like at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeState {
    /// Devices that lead to other nodes and to clients.
    pub devices: Vec<Device>,
    /// The node's ends of links to pods.
    pub pods: Vec<Device>,
    /// Source addresses for connections to backends elsewhere, by index of the uplink: of those on
    /// which the programs can change the source.
    pub sources: BTreeMap<u32, Sources>,
    /// Connections may go where the programs cannot change the source: netfilter must do it.
    pub needs_masquerade: bool,
    /// Every unicast address of the node, loopback included, IPv6 link-local left out.
    pub addresses: BTreeSet<IpAddr>,
    /// Devices that should get the programs and cannot.
    pub problems: Vec<Problem>,
}
