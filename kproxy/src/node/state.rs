//! The node at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{device::Device, sources::Sources};
use crate::model::Problem;

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
