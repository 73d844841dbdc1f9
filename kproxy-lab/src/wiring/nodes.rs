//! The router, the client, the nodes and the control plane, and what is between them.

use super::script::Script;
use super::shape::{Feature, Network, Shape};
use super::{overlay, pods};
use crate::layout::{self, GATEWAY, Names};

/// Makes named namespaces.
pub(crate) fn namespaces(names: &Names, places: &[String]) -> Script {
    let mut script = Script::default();
    for place in places {
        script.line(format!("netns add {}", names.netns(place)));
    }
    script
}

/// The router: the nodes' bridge and the client's subnet. On a network of routes, ways to the pods
/// too (nodes and pods may be dialled directly from outside, as a measure for what Services cost).
pub(crate) fn router(shape: &Shape, names: &Names, nodes: u8) -> Script {
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
pub(crate) fn fabric_port_of(names: &Names, place: &str) -> Script {
    let mut script = Script::default();
    script.veth(place, "eth0", &names.netns(place));
    script.line(format!("link set {place} master br0 up"));
    script
}

/// A place on the nodes' subnet that is no node.
pub(crate) fn on_fabric(host: u8) -> Script {
    let mut script = Script::default();
    script.uplink(layout::on_fabric(host), layout::on_fabric(GATEWAY));
    script
}

pub(crate) fn client() -> Script {
    let mut script = Script::default();
    script.uplink(layout::on_outside(layout::CLIENT), layout::on_outside(GATEWAY));
    script
}

/// A node: bridge of the pods, uplinks, ways to the pods of the other nodes.
pub(crate) fn node(shape: &Shape, node: u8, nodes: u8) -> Script {
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
pub(crate) fn service_routes(node: u8) -> Script {
    let (mut script, via) = (Script::default(), layout::node(node));
    script.route(layout::SERVICE_CIDR_V4, via.v4.into());
    script.route(layout::SERVICE_CIDR_V6, via.v6.into());
    script
}
