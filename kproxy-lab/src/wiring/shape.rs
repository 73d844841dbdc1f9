//! How a lab's nodes and pods are connected: what the usual CNIs make, and what makes life hard for
//! a service proxy beside them.
//!
//! Details follow the sources of Flannel (cdf7605, August 2026: `pkg/backend/vxlan`,
//! `pkg/trafficmngr/iptables`) and Calico (87c1590, August 2026: `cni-plugin/pkg/dataplane/linux`,
//! `felix/dataplane/linux/endpoint_mgr.go`, `felix/rules`).

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// How pods reach pods of other nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, clap::ValueEnum)]
pub enum Network {
    /// Pods on a bridge, routes from node to node: the bridge plugin, Flannel's host-gw.
    #[default]
    Bridge,
    /// Pods on a bridge, VXLAN between the nodes, masquerade rules: Flannel.
    #[value(name = "flannel")]
    Vxlan,
    /// No bridge: a routed veth a pod with addresses of one host, proxy ARP, routes from node to
    /// node: Calico.
    #[value(name = "calico")]
    Routed,
}

impl Network {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Vxlan, Self::Routed];
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Vxlan => "flannel",
            Self::Routed => "calico",
        })
    }
}

/// What nodes may have besides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Feature {
    /// Strict reverse path filtering on all devices of the nodes.
    RpFilter,
    /// A firewall that forwards nothing but what the CNI has accepted, and nothing that connection
    /// tracking calls invalid.
    ForwardDrop,
    /// A second uplink `eth1` on a subnet of its own, by which the nodes answer the client, and
    /// the first node, whatever uplink was dialled. The reverse path filter is loose, as it must be
    /// then.
    SecondUplink,
    /// The uplink is a VLAN of `eth0`.
    VlanUplink,
    /// The way between the nodes has a smaller MTU than the pods' devices.
    SmallMtu,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::RpFilter, Self::ForwardDrop, Self::SecondUplink, Self::VlanUplink, Self::SmallMtu];

    /// Whether nodes can have it here.
    ///
    /// # Errors
    /// What the kernel lacks.
    pub fn is_supported(self) -> Result<()> {
        if self == Self::VlanUplink && !has_vlans() {
            bail!("the kernel cannot make VLANs: it needs CONFIG_VLAN_8021Q (module 8021q)");
        }
        Ok(())
    }
}

/// The kernel makes the folder when it has the module, which `modprobe` loads if it is one.
fn has_vlans() -> bool {
    let is_there = || Path::new("/proc/net/vlan").exists();
    is_there() || Command::new("modprobe").args(["-q", "8021q"]).status().is_ok() && is_there()
}

/// VLAN of [`Feature::VlanUplink`].
pub(super) const VLAN: u16 = 10;
/// MTU between the nodes with [`Feature::SmallMtu`]. IPv6 needs 1280.
const SMALL_MTU: u16 = 1300;
/// What VXLAN over IPv4 leaves of 1500 bytes. Flannel takes it for IPv6 too, where the kernel cuts
/// it down to 1430.
pub(super) const VXLAN_MTU: u16 = 1450;

/// The network of a lab with all its features.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) network: Network,
    pub(crate) features: BTreeSet<Feature>,
}

impl Shape {
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// The device of a node that holds its addresses.
    pub(super) fn uplink(&self) -> String {
        self.vlan_of("eth0")
    }

    /// The device that carries the nodes' subnet on a wire.
    pub(super) fn vlan_of(&self, wire: &str) -> String {
        if self.has(Feature::VlanUplink) { format!("{wire}.{VLAN}") } else { wire.to_owned() }
    }

    /// The node's end of a pod's veth.
    pub(super) fn pod_device(&self, pod: &str) -> String {
        let prefix = if self.network == Network::Routed { "cali" } else { "veth-" };
        format!("{prefix}{pod}")
    }

    /// MTU of the pods' devices, where it is not the usual one.
    pub(super) fn pod_mtu(&self) -> Option<u16> {
        (self.network == Network::Vxlan).then_some(VXLAN_MTU)
    }

    /// MTU of the way between the nodes, where it is not that of the wire.
    pub(super) fn way_mtu(&self) -> Option<u16> {
        self.has(Feature::SmallMtu).then_some(SMALL_MTU)
    }
}
