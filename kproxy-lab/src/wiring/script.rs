//! Commands of iproute2, and those that several parts of a lab need.

use std::net::IpAddr;

use super::shape::VLAN;
use crate::layout::{self, Addresses};

/// `ip` commands, one a line.
#[derive(Default)]
pub(crate) struct Script(String);

impl Script {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// A bridge. Its MAC address is given: it would change with its ports otherwise, and neighbours
    /// would send to the old one for a while. Snooping would drop multicast, and IPv6 neighbour
    /// discovery with it, until its ports are known.
    pub(super) fn bridge(&mut self, name: &str, mac: &str) {
        self.line(format!("link add {name} address {mac} type bridge mcast_snooping 0"));
        self.line(format!("link set {name} up"));
    }

    pub(super) fn addresses(&mut self, device: &str, addresses: Addresses) {
        self.line(format!("addr add {}/24 dev {device}", addresses.v4));
        self.line(format!("addr add {}/64 dev {device} nodad", addresses.v6));
    }

    /// `eth0` of a namespace, with a way out.
    pub(super) fn uplink(&mut self, addresses: Addresses, gateway: Addresses) {
        self.uplink_at("eth0", addresses, gateway);
    }

    pub(super) fn uplink_at(&mut self, device: &str, addresses: Addresses, gateway: Addresses) {
        self.line("link set lo up");
        self.addresses(device, addresses);
        self.line(format!("link set {device} up"));
        self.route("0.0.0.0/0", gateway.v4.into());
        self.route("::/0", gateway.v6.into());
    }

    pub(super) fn route(&mut self, to: &str, via: IpAddr) {
        // `replace` so that a route may be given another gateway later.
        self.line(format!("route replace {to} via {via}"));
    }

    /// Routes to the pods of a node. Their MTU is locked: `bpf_fib_lookup` sees it for IPv4 only
    /// then (`ip_mtu_from_fib_result`, net/ipv4/route.c).
    pub(super) fn pod_routes(&mut self, node: u8, mtu: Option<u16>) {
        let (range, via) = (layout::on_node(node, 0), layout::node(node));
        let mtu = mtu.map_or_else(String::new, |mtu| format!(" mtu lock {mtu}"));
        self.line(format!("route replace {}/24 via {}{mtu}", range.v4, via.v4));
        self.line(format!("route replace {}/64 via {}{mtu}", range.v6, via.v6));
    }

    /// A veth pair: `name` here, `peer` in another namespace.
    pub(super) fn veth(&mut self, name: &str, peer: &str, peer_netns: &str) {
        self.line(format!("link add {name} type veth peer name {peer} netns {peer_netns}"));
    }

    /// A VLAN of a device, with the device itself up.
    pub(super) fn vlan(&mut self, wire: &str) {
        self.line(format!("link set {wire} up"));
        self.line(format!("link add link {wire} name {wire}.{VLAN} type vlan id {VLAN}"));
    }
}
