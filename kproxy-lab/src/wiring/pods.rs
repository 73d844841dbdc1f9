//! How pods are connected to their node.

use super::script::Script;
use super::shape::{Network, Shape};
use crate::layout::{self, Addresses, GATEWAY, Names};

/// MAC address of the node's end of every pod (`hostSideMAC` of Calico), and the link-local address
/// that follows from it.
const HOST_SIDE_MAC: &str = "ee:ee:ee:ee:ee:ee";
const HOST_SIDE_ADDRESS: &str = "fe80::ecee:eeff:feee:eeee";
/// What pods take for their gateway; nobody has it (proxy ARP answers).
const PROXY_GATEWAY: &str = "169.254.1.1";

/// What a node needs before it has pods.
pub(super) fn ground(script: &mut Script, shape: &Shape, node: u8) {
    let range = layout::on_node(node, 0);
    if shape.network == Network::Routed {
        // BIRD keeps packets for pods that are not there from going out by the default route.
        script.line(format!("route add blackhole {}/24", range.v4));
        script.line(format!("route add blackhole {}/64", range.v6));
        return;
    }
    script.bridge("cni0", &format!("02:00:00:44:{node:02x}:01"));
    if let Some(mtu) = shape.pod_mtu() {
        script.line(format!("link set cni0 mtu {mtu}"));
    }
    script.addresses("cni0", layout::on_node(node, GATEWAY));
}

/// The node's end of a pod, and the link to it. The pod's MAC address follows from its IPv4
/// address: when a later pod gets the address, what neighbours remember is still right.
pub(crate) fn port(
    shape: &Shape,
    names: &Names,
    place: &str,
    pod: &str,
    addresses: Addresses,
) -> Script {
    let mut script = Script::default();
    let device = shape.pod_device(pod);
    let [a, b, c, d] = addresses.v4.octets();
    let mtu = shape.pod_mtu().map_or_else(String::new, |mtu| format!("mtu {mtu} "));
    script.line(format!(
        "link add {device} {mtu}type veth \
         peer name eth0 {mtu}address 0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x} netns {}",
        names.netns(place)
    ));
    if shape.network == Network::Routed {
        script.line(format!("link set {device} address {HOST_SIDE_MAC} up"));
        script.line(format!("route add {} dev {device} scope link", addresses.v4));
        script.line(format!("route add {} dev {device}", addresses.v6));
    } else {
        script.line(format!("link set {device} master cni0 up"));
        // As bridge CNIs have it: with br_netfilter, a pod that reaches itself through a Service
        // leaves the bridge by the port it came from.
        script.line(format!("link set {device} type bridge_slave hairpin on"));
    }
    script
}

/// The node's end of a pod goes; its other end goes with it.
pub(crate) fn no_port(shape: &Shape, pod: &str) -> Script {
    let mut script = Script::default();
    script.line(format!("link del {}", shape.pod_device(pod)));
    script
}

/// The pod's end.
pub(crate) fn pod(shape: &Shape, node: u8, addresses: Addresses) -> Script {
    let mut script = Script::default();
    if shape.network != Network::Routed {
        script.uplink(addresses, layout::on_node(node, GATEWAY));
        return script;
    }
    script.line("link set lo up");
    script.line("link set eth0 up");
    script.line(format!("addr add {}/32 dev eth0", addresses.v4));
    script.line(format!("addr add {}/128 dev eth0 nodad", addresses.v6));
    script.line(format!("route add {PROXY_GATEWAY} dev eth0 scope link"));
    script.line(format!("route add 0.0.0.0/0 via {PROXY_GATEWAY} dev eth0"));
    script.line(format!("route add ::/0 via {HOST_SIDE_ADDRESS} dev eth0"));
    script
}
