//! `ip` commands that connect the namespaces of a lab.
//!
//! ```text
//! client eth0 ── client ┐ router ┌ br0 ── n1 ── eth0 ┐ n1 ┌ cni0 ── veth-a ── eth0 n1/a
//!                       └────────┘    └── n2 ── eth0 …    └──────── veth-b ── eth0 n1/b
//! ```
//!
//! This is [`Network::Bridge`]. [`overlay`] puts VXLAN between the nodes, [`pods`] knows how pods
//! are connected to their node.

pub(super) mod overlay;
pub(super) mod pods;

use std::net::IpAddr;

use crate::lab::network::{Feature, Network, Shape, VLAN};
use crate::layout::{self, Addresses, GATEWAY, Names};

/// Settings of every namespace: no waiting for duplicate address detection, and no reverse path
/// filter that the machine happens to have (new namespaces inherit it).
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];
/// Settings of nodes and the router besides [`SETTINGS`].
pub(super) const FORWARDING: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Reverse path filter of nodes. Of a device's own setting and that of all devices the larger counts
/// (Documentation/networking/ip-sysctl.rst): 1 is strict, 2 takes a source that is reachable at all.
pub(super) fn rp_filter(shape: &Shape) -> [(&'static str, &'static str); 2] {
    let value = if shape.has(Feature::SecondUplink) {
        "2"
    } else if shape.has(Feature::RpFilter) {
        "1"
    } else {
        "0"
    };
    [("ipv4/conf/all/rp_filter", value), ("ipv4/conf/default/rp_filter", value)]
}

/// Whether bridged packets pass netfilter; only where br_netfilter is loaded.
pub(super) const fn bridge_netfilter(on: bool) -> &'static [(&'static str, &'static str)] {
    if on {
        &[("bridge/bridge-nf-call-iptables", "1"), ("bridge/bridge-nf-call-ip6tables", "1")]
    } else {
        &[("bridge/bridge-nf-call-iptables", "0"), ("bridge/bridge-nf-call-ip6tables", "0")]
    }
}

/// `ip` commands, one a line.
#[derive(Default)]
pub(super) struct Script(String);

impl Script {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// A bridge. Its MAC address is given: it would change with its ports otherwise, and neighbours
    /// would send to the old one for a while. Snooping would drop multicast, and IPv6 neighbour
    /// discovery with it, until its ports are known.
    fn bridge(&mut self, name: &str, mac: &str) {
        self.line(format!("link add {name} address {mac} type bridge mcast_snooping 0"));
        self.line(format!("link set {name} up"));
    }

    fn addresses(&mut self, device: &str, addresses: Addresses) {
        self.line(format!("addr add {}/24 dev {device}", addresses.v4));
        self.line(format!("addr add {}/64 dev {device} nodad", addresses.v6));
    }

    /// `eth0` of a namespace, with a way out.
    fn uplink(&mut self, addresses: Addresses, gateway: Addresses) {
        self.uplink_at("eth0", addresses, gateway);
    }

    fn uplink_at(&mut self, device: &str, addresses: Addresses, gateway: Addresses) {
        self.line("link set lo up");
        self.addresses(device, addresses);
        self.line(format!("link set {device} up"));
        self.route("0.0.0.0/0", gateway.v4.into());
        self.route("::/0", gateway.v6.into());
    }

    fn route(&mut self, to: &str, via: IpAddr) {
        // `replace` so that a route may be given another gateway later.
        self.line(format!("route replace {to} via {via}"));
    }

    /// Routes to the pods of a node. Their MTU is locked: `bpf_fib_lookup` sees it for IPv4 only
    /// then (`ip_mtu_from_fib_result`, net/ipv4/route.c).
    fn pod_routes(&mut self, node: u8, mtu: Option<u16>) {
        let (range, via) = (layout::on_node(node, 0), layout::node(node));
        let mtu = mtu.map_or_else(String::new, |mtu| format!(" mtu lock {mtu}"));
        self.line(format!("route replace {}/24 via {}{mtu}", range.v4, via.v4));
        self.line(format!("route replace {}/64 via {}{mtu}", range.v6, via.v6));
    }

    /// A veth pair: `name` here, `peer` in another namespace.
    fn veth(&mut self, name: &str, peer: &str, peer_netns: &str) {
        self.line(format!("link add {name} type veth peer name {peer} netns {peer_netns}"));
    }

    /// A VLAN of a device, with the device itself up.
    fn vlan(&mut self, wire: &str) {
        self.line(format!("link set {wire} up"));
        self.line(format!("link add link {wire} name {wire}.{VLAN} type vlan id {VLAN}"));
    }
}

/// Makes named namespaces.
pub(super) fn namespaces(names: &Names, places: &[String]) -> Script {
    let mut script = Script::default();
    for place in places {
        script.line(format!("netns add {}", names.netns(place)));
    }
    script
}

/// The router: the nodes' bridge and the client's subnet. On a network of routes, ways to the pods
/// too (nodes and pods may be dialled directly from outside, as a measure for what Services cost).
pub(super) fn router(shape: &Shape, names: &Names, nodes: u8) -> Script {
    let mut script = Script::default();
    script.line("link set lo up");
    script.bridge("br0", "02:00:00:18:00:01");
    script.addresses("br0", layout::on_fabric(GATEWAY));
    script.veth("client", "eth0", &names.netns("client"));
    script.addresses("client", layout::on_outside(GATEWAY));
    script.line("link set client up");
    for node in 1..=nodes {
        let name = format!("n{node}");
        script.veth(&name, "eth0", &names.netns(&name));
        if shape.has(Feature::VlanUplink) {
            script.vlan(&name);
        }
        script.line(format!("link set {} master br0 up", shape.vlan_of(&name)));
        if shape.network == Network::Bridge {
            script.pod_routes(node, None);
        }
    }
    if shape.has(Feature::SecondUplink) {
        script.bridge("br1", "02:00:00:19:00:01");
        script.addresses("br1", layout::on_second_fabric(GATEWAY));
        for node in 1..=nodes {
            script.veth(&format!("n{node}-2"), "eth1", &names.netns(&format!("n{node}")));
            script.line(format!("link set n{node}-2 master br1 up"));
        }
    }
    script
}

/// Connects one more place to the nodes' bridge (in the router).
pub(super) fn fabric_port_of(names: &Names, place: &str) -> Script {
    let mut script = Script::default();
    script.veth(place, "eth0", &names.netns(place));
    script.line(format!("link set {place} master br0 up"));
    script
}

/// A place on the nodes' subnet that is no node.
pub(super) fn on_fabric(host: u8) -> Script {
    let mut script = Script::default();
    script.uplink(layout::on_fabric(host), layout::on_fabric(GATEWAY));
    script
}

pub(super) fn client() -> Script {
    let mut script = Script::default();
    script.uplink(layout::on_outside(layout::CLIENT), layout::on_outside(GATEWAY));
    script
}

/// A node: bridge of the pods, uplinks, ways to the pods of the other nodes.
pub(super) fn node(shape: &Shape, node: u8, nodes: u8) -> Script {
    let mut script = Script::default();
    if shape.has(Feature::VlanUplink) {
        script.vlan("eth0");
    }
    pods::ground(&mut script, shape, node);
    script.uplink_at(&shape.uplink(), layout::node(node), layout::on_fabric(GATEWAY));
    if shape.has(Feature::SecondUplink) {
        let (here, gateway) = (layout::second(node), layout::on_second_fabric(GATEWAY));
        script.addresses("eth1", here);
        script.line("link set eth1 up");
        let outside = layout::on_outside(0);
        script.route(&format!("{}/24", outside.v4), gateway.v4.into());
        script.route(&format!("{}/64", outside.v6), gateway.v6.into());
    }
    if shape.network == Network::Vxlan {
        overlay::devices(&mut script, shape, node);
    }
    for other in (1..=nodes).filter(|other| *other != node) {
        match shape.network {
            Network::Bridge | Network::Routed => script.pod_routes(other, shape.way_mtu()),
            Network::Vxlan => overlay::ways(&mut script, other),
        }
    }
    if shape.has(Feature::SecondUplink) && node > 1 {
        // What the first node asks for by one uplink, the others answer by the other. Last: a
        // gateway must be a neighbour.
        let (first, via) = (layout::node(1), layout::second(1));
        script.route(&first.v4.to_string(), via.v4.into());
        script.route(&first.v6.to_string(), via.v6.into());
    }
    script
}

/// Ways from outside to ClusterIPs through a node (in the router).
pub(super) fn service_routes(node: u8) -> Script {
    let (mut script, via) = (Script::default(), layout::node(node));
    script.route(layout::SERVICE_CIDR_V4, via.v4.into());
    script.route(layout::SERVICE_CIDR_V6, via.v6.into());
    script
}
