//! The node at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{device::Device, sources::Sources};
use crate::model::{Family, Problem};

/// Devices with programs, by index. Each keeps its role while it exists and does not lead elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// Those that lead to other nodes and to clients.
    pub uplinks: BTreeSet<u32>,
    /// Those that lead to pods.
    pub pods: BTreeSet<u32>,
}

impl Served {
    /// Those of this state.
    pub(super) fn of(state: &NodeState) -> Self {
        let indices = |devices: &[Device]| devices.iter().map(|device| device.index).collect();
        Self { uplinks: indices(&state.devices), pods: indices(&state.pods) }
    }
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

impl NodeState {
    /// Families that pods use: the first always, the other where an uplink has an address of it.
    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        let has_v6 = self.sources.values().any(|sources| sources.v6.is_some());
        [Some(Family::V4), has_v6.then_some(Family::V6)].into_iter().flatten()
    }
}
