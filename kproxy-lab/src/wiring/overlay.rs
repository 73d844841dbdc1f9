//! VXLAN between the nodes as Flannel makes it: a device a family, its address the first of the
//! node's pods, permanent entries instead of learning (`pkg/backend/vxlan`).

use super::script::Script;
use super::shape::{Shape, VXLAN_MTU};
use crate::layout::{self, Family};

/// Name, and last byte of the MAC address, of the device for a family.
const fn device(family: Family) -> (&'static str, u8) {
    match family {
        Family::V4 => ("flannel.1", 4),
        Family::V6 => ("flannel-v6.1", 6),
    }
}

/// Flannel draws it at random and tells the other nodes.
fn mac(family: Family, node: u8) -> String {
    format!("0e:00:00:f1:{node:02x}:{:02x}", device(family).1)
}

/// The devices of a node.
pub(super) fn devices(script: &mut Script, shape: &Shape, node: u8) {
    let (uplink, mtu) = (shape.uplink(), shape.way_mtu().unwrap_or(VXLAN_MTU));
    for family in Family::ALL {
        let ((name, _), mac) = (device(family), mac(family, node));
        let (outer, inner) = (layout::node(node).of(family), layout::on_node(node, 0).of(family));
        // Without `dstport` the kernel takes 8472, Flannel's port on Linux; said for clarity.
        script.line(format!(
            "link add {name} address {mac} mtu {mtu} type vxlan id 1 local {outer} dev {uplink} \
             dstport 8472 nolearning"
        ));
        match family {
            Family::V4 => script.line(format!("addr add {inner}/32 dev {name}")),
            Family::V6 => script.line(format!("addr add {inner}/128 dev {name} nodad")),
        }
        script.line(format!("link set {name} up"));
    }
}

/// Neighbours and routes to the pods of another node.
pub(super) fn ways(script: &mut Script, other: u8) {
    for family in Family::ALL {
        let ((name, _), mac) = (device(family), mac(family, other));
        let (first, bits) = (layout::on_node(other, 0).of(family), bits(family));
        script.line(format!("neigh replace {first} lladdr {mac} dev {name} nud permanent"));
        script.line(format!("route replace {first}/{bits} via {first} dev {name} onlink"));
    }
}

const fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Which node a MAC address is on: commands of `bridge`, not of `ip`.
pub(crate) fn forwarding(node: u8, nodes: u8) -> Script {
    let mut script = Script::default();
    for other in (1..=nodes).filter(|other| *other != node) {
        for family in Family::ALL {
            let ((name, _), mac) = (device(family), mac(family, other));
            let outer = layout::node(other).of(family);
            script.line(format!("fdb append {mac} dev {name} dst {outer}"));
        }
    }
    script
}
