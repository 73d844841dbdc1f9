//! Which devices lead out of the node, and which addresses are the node's own.
//!
//! # The rule
//! An *uplink* is a device that packets from outside the node come in by. Unless `--devices` names
//! them, it is a device that is up and
//!
//! * holds a global unicast address (no link-local one) or carries a default route, and
//! * leads out of the node:
//!
//! | device | uplink? |
//! | --- | --- |
//! | physical and virtual network cards, VLAN, bond, team, macvlan, tun, WireGuard, VXLAN, Geneve, IPIP, GRE | yes |
//! | veth and netkit with the peer in another namespace | with a default route, or an address whose prefix is shorter than a host's: the node itself is a container then (kind, kproxy-lab). Else it is the host end of a pod |
//! | veth and netkit with the peer in this namespace | no |
//! | bridge | when one of its ports leads out (no veth, netkit or tap); cni0 and docker0 hold pods |
//! | port of a bridge, bond or team | no: the bridge, bond or team itself |
//! | loopback, dummy, ifb, VRF (its ports count) | no |
//!
//! Packets of pods do not need an uplink: their sockets are translated before a packet exists.

mod follow;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use follow::{Error, follow, read};

/// An uplink.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Packets start with an Ethernet header; else with the IP header.
    pub ethernet: bool,
}

/// What the data path needs to know of the node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeState {
    /// Uplinks, sorted by name.
    pub devices: Vec<Device>,
    /// Every address of the namespace's devices, loopback included. Not: link-local IPv6 ones
    /// (they mean nothing without a device) and those that duplicate address detection has not
    /// let through.
    pub addresses: BTreeSet<IpAddr>,
}

/// How uplinks are chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Selection {
    /// By the rule of this module.
    #[default]
    ByRole,
    /// Devices whose names match one of these patterns (`*`: any text, `?`: any character) and
    /// that are up; loopback too, if it is asked for by name.
    Named(Vec<String>),
}

/// What the kernel tells of links, addresses and routes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Snapshot {
    /// Links by index.
    links: BTreeMap<u32, Link>,
    /// Usable addresses: (link index, address, prefix length).
    addresses: Vec<(u32, IpAddr, u8)>,
    /// Links that a default route leads to.
    default_routes: BTreeSet<u32>,
}

/// A link.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Link {
    name: String,
    up: bool,
    role: Role,
    header: Header,
    /// Index of the bridge, bond or team that it is a port of.
    port_of: Option<u32>,
}

/// What a device is for, as far as the rule cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Leads out if it holds an address.
    Ordinary,
    /// tun or tap: ordinary, but as a bridge port the end of a virtual machine.
    Tun,
    /// veth or netkit, and whether the peer is in another namespace.
    Pair {
        away: bool,
    },
    Bridge,
    /// Never leads out.
    Inside,
    Loopback,
}

/// What packets of a device start with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Header {
    Ethernet,
    /// The IP header.
    Ip,
    /// Something that the programs cannot read (InfiniBand, ...).
    Other,
}

impl Snapshot {
    fn state(&self, selection: &Selection) -> NodeState {
        let mut devices: Vec<_> = self
            .links
            .iter()
            .filter(|(index, link)| link.up && self.is_chosen(**index, link, selection))
            .filter(|(_, link)| link.header != Header::Other)
            .map(|(index, link)| Device {
                name: link.name.clone(),
                index: *index,
                ethernet: link.header == Header::Ethernet,
            })
            .collect();
        devices.sort();
        let addresses = self.addresses.iter().map(|(_, addr, _)| *addr);
        let addresses = addresses.filter(|addr| !is_link_local_v6(addr)).collect();
        NodeState { devices, addresses }
    }

    fn is_chosen(&self, index: u32, link: &Link, selection: &Selection) -> bool {
        match selection {
            Selection::Named(patterns) => {
                patterns.iter().any(|pattern| matches(pattern.as_bytes(), link.name.as_bytes()))
            }
            Selection::ByRole => self.is_uplink(index, link),
        }
    }

    fn is_uplink(&self, index: u32, link: &Link) -> bool {
        if link.port_of.is_some() {
            return false;
        }
        let default_route = self.default_routes.contains(&index);
        let global = || {
            let own = self.addresses.iter().filter(move |(of, ..)| *of == index);
            own.filter(|(_, addr, _)| is_global(addr))
        };
        match link.role {
            Role::Loopback | Role::Inside | Role::Pair { away: false } => false,
            Role::Ordinary | Role::Tun => default_route || global().next().is_some(),
            Role::Bridge => {
                (default_route || global().next().is_some()) && self.bridge_leads_out(index)
            }
            Role::Pair { away: true } => {
                default_route || global().any(|(_, addr, prefix)| *prefix < host_prefix(addr))
            }
        }
    }

    fn bridge_leads_out(&self, bridge: u32) -> bool {
        let mut ports = self.links.values().filter(|link| link.port_of == Some(bridge));
        ports.any(|port| matches!(port.role, Role::Ordinary | Role::Bridge))
    }
}

const fn host_prefix(addr: &IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn is_global(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !is_link_local_v6(addr) && !v6.is_loopback() && !v6.is_unspecified(),
    }
}

fn is_link_local_v6(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Whether a name matches a pattern of `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name)
                || name.split_first().is_some_and(|(_, name)| matches(pattern, name))
        }
        (Some((b'?', pattern)), Some((_, name))) => matches(pattern, name),
        (Some((want, pattern)), Some((have, name))) => want == have && matches(pattern, name),
        _ => false,
    }
}
