//! Nodes.

use std::net::IpAddr;

use super::parse_ip;
use crate::model::{Family, Node};
use crate::source::objects;

/// Zone label of a Node (`k8s.io/api/core/v1/well_known_labels.go`).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What the plan wants of a Node.
pub(crate) fn node(node: &objects::Node) -> Node {
    let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
    Node { zone: zone.filter(|zone| !zone.is_empty()).cloned(), addresses: addresses(node) }
}

/// The first internal address, or the first external one, and the next one of the other family
/// (NODE-02; `GetNodeHostIPs` in kubernetes `pkg/util/node/node.go`).
fn addresses(node: &objects::Node) -> Vec<IpAddr> {
    let written = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    let of_type = |kind: &'static str| {
        let of_type = written.into_iter().flatten().filter(move |address| address.type_ == kind);
        of_type.filter_map(|address| parse_ip(&address.address))
    };
    let mut chosen: Vec<IpAddr> = Vec::new();
    for ip in of_type("InternalIP").chain(of_type("ExternalIP")) {
        if !chosen.iter().any(|other| Family::of(other) == Family::of(&ip)) {
            chosen.push(ip);
        }
    }
    chosen
}
