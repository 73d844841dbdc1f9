//! Nodes.

use std::net::IpAddr;

use super::parse_ip;
use crate::model::{Family, Node};
use crate::source::objects;

/// Zone label of a Node (`k8s.io/api/core/v1/well_known_labels.go`).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Key of the taint of a Node that the cluster autoscaler is about to delete (kubernetes
/// `pkg/proxy/healthcheck/proxy_health.go`).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is wanted of a Node.
pub(crate) fn node(node: &objects::Node) -> Node {
    let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    Node {
        zone: zone.filter(|zone| !zone.is_empty()).cloned(),
        addresses: addresses(node),
        leaving: node.metadata.deletion_timestamp.is_some()
            || taints.iter().any(|taint| taint.key == TO_BE_DELETED),
    }
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
