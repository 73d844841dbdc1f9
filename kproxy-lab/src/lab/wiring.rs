//! `ip` commands that connect the namespaces of a lab.
//!
//! ```text
//! client eth0 ── client ┐ router ┌ br0 ── n1 ── eth0 ┐ n1 ┌ cni0 ── veth-a ── eth0 n1/a
//!                       └────────┘    └── n2 ── eth0 …    └──────── veth-b ── eth0 n1/b
//! ```

use std::net::IpAddr;

use crate::layout::{self, Addresses, GATEWAY, Names};

/// Settings of every namespace: no waiting for duplicate address detection.
pub(super) const SETTINGS: &[(&str, &str)] =
    &[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")];
/// Settings of nodes and the router besides [`SETTINGS`].
pub(super) const FORWARDING: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

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
        self.line("link set lo up");
        self.addresses("eth0", addresses);
        self.line("link set eth0 up");
        self.route("0.0.0.0/0", gateway.v4.into());
        self.route("::/0", gateway.v6.into());
    }

    fn route(&mut self, to: &str, via: IpAddr) {
        // `replace` so that a route may be given another gateway later.
        self.line(format!("route replace {to} via {via}"));
    }

    /// Routes to the pods of a node.
    fn pod_routes(&mut self, node: u8) {
        let (range, via) = (layout::on_node(node, 0), layout::node(node));
        self.route(&format!("{}/24", range.v4), via.v4.into());
        self.route(&format!("{}/64", range.v6), via.v6.into());
    }

    /// A veth pair: `name` here, `eth0` in another namespace.
    fn veth(&mut self, name: &str, peer_netns: &str) {
        self.line(format!("link add {name} type veth peer name eth0 netns {peer_netns}"));
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

/// The router: the nodes' bridge, the client's subnet, ways to the pods (nodes and pods may be
/// dialled directly from outside, as a measure for what Services cost).
pub(super) fn router(names: &Names, nodes: u8) -> Script {
    let mut script = Script::default();
    script.line("link set lo up");
    script.bridge("br0", "02:00:00:18:00:01");
    script.addresses("br0", layout::on_fabric(GATEWAY));
    script.veth("client", &names.netns("client"));
    script.addresses("client", layout::on_outside(GATEWAY));
    script.line("link set client up");
    for node in 1..=nodes {
        fabric_port(&mut script, names, &format!("n{node}"));
        script.pod_routes(node);
    }
    script
}

fn fabric_port(script: &mut Script, names: &Names, place: &str) {
    script.veth(place, &names.netns(place));
    script.line(format!("link set {place} master br0 up"));
}

/// Connects one more place to the nodes' bridge (in the router).
pub(super) fn fabric_port_of(names: &Names, place: &str) -> Script {
    let mut script = Script::default();
    fabric_port(&mut script, names, place);
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

/// A node: bridge of the pods, uplink, ways to the pods of the other nodes.
pub(super) fn node(node: u8, nodes: u8) -> Script {
    let mut script = Script::default();
    script.bridge("cni0", &format!("02:00:00:44:{node:02x}:01"));
    script.addresses("cni0", layout::on_node(node, GATEWAY));
    script.uplink(layout::node(node), layout::on_fabric(GATEWAY));
    for other in (1..=nodes).filter(|other| *other != node) {
        script.pod_routes(other);
    }
    script
}

/// The node's end of a pod, and the link to it. The pod's MAC address follows from its IPv4
/// address: when a later pod gets the address, what neighbours remember is still right.
pub(super) fn pod_port(names: &Names, place: &str, pod: &str, addresses: Addresses) -> Script {
    let mut script = Script::default();
    let [a, b, c, d] = addresses.v4.octets();
    script.line(format!(
        "link add veth-{pod} type veth \
         peer name eth0 address 0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x} netns {}",
        names.netns(place)
    ));
    script.line(format!("link set veth-{pod} master cni0 up"));
    // As bridge CNIs have it: with br_netfilter, a pod that reaches itself through a Service leaves
    // the bridge by the port it came from.
    script.line(format!("link set veth-{pod} type bridge_slave hairpin on"));
    script
}

/// The node's end of a pod goes; its other end goes with it.
pub(super) fn no_pod_port(pod: &str) -> Script {
    let mut script = Script::default();
    script.line(format!("link del veth-{pod}"));
    script
}

/// The pod's end.
pub(super) fn pod(node: u8, addresses: Addresses) -> Script {
    let mut script = Script::default();
    script.uplink(addresses, layout::on_node(node, GATEWAY));
    script
}

/// Ways from outside to ClusterIPs through a node (in the router).
pub(super) fn service_routes(node: u8) -> Script {
    let (mut script, via) = (Script::default(), layout::node(node));
    script.route(layout::SERVICE_CIDR_V4, via.v4.into());
    script.route(layout::SERVICE_CIDR_V6, via.v6.into());
    script
}
