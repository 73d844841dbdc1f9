//! What a Service has been given, as far as the maps tell.

use std::collections::HashMap;

use crate::dataplane::read::FrontendRow;
use crate::model::ServiceName;
use crate::plan::{FrontendKind, ServicePortId};
use crate::source::manifests::Allocated;

/// By its frontends; `None`: it has none.
pub(super) fn of_maps(frontends: &[FrontendRow], name: &ServiceName) -> Option<Allocated> {
    let is_its = |id: &ServicePortId| (&id.namespace, &id.name) == (&name.namespace, &name.name);
    let its = frontends
        .iter()
        .filter_map(|row| Some((row.service.as_ref().filter(|id| is_its(id))?, row)));
    let of_kind = |kind| its.clone().filter(move |(_, row)| row.kinds.contains(&kind));
    let mut allocated = Allocated::default();
    // The port that a cluster IP has for each service port.
    let mut ports = HashMap::new();
    for (id, row) in of_kind(FrontendKind::ClusterIp) {
        if !allocated.cluster_ips.contains(&row.addr) {
            allocated.cluster_ips.push(row.addr);
        }
        ports.insert(id, row.port);
    }
    for (id, row) in of_kind(FrontendKind::NodePort) {
        if let Some(port) = ports.get(id) {
            allocated.node_ports.insert((id.protocol, *port), row.port);
        }
    }
    for (_, row) in of_kind(FrontendKind::LoadBalancer) {
        if !allocated.load_balancer_ips.contains(&row.addr) {
            allocated.load_balancer_ips.push(row.addr);
        }
    }
    (!allocated.cluster_ips.is_empty()).then_some(allocated)
}
