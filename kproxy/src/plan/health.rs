//! What a node tells load balancers about a Service (healthCheckNodePort).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use crate::model::{Endpoint, Family, Service, ServiceName, Slice};

/// Health checks by Service.
pub(crate) type HealthChecks = BTreeMap<ServiceName, HealthCheck>;

/// A Service that load balancers ask this node about (SVC-14).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HealthCheck {
    /// Port on which they ask.
    pub port: NonZeroU16,
    /// Endpoints on this node, for each family that the Service has (HCN-12).
    pub endpoints: BTreeMap<Family, usize>,
}

impl HealthCheck {
    /// What is answered on addresses of a family: the endpoints of that family, or those that the Service
    /// has where it has none of the family.
    pub(crate) fn count(&self, family: Family) -> usize {
        let of_service = || self.endpoints.values().copied().max();
        self.endpoints.get(&family).copied().or_else(of_service).unwrap_or(0)
    }
}

/// The health check of a Service, if it has one. As pure as [`super::plan_service`].
pub(crate) fn health_check<'s>(
    service: &Service,
    slices: impl Iterator<Item = &'s Slice> + Clone,
    node_name: &str,
) -> Option<HealthCheck> {
    let port = service.health_check_port()?;
    let families = service.cluster_ips.iter().map(Family::of);
    let endpoints =
        families.map(|family| (family, local_ready(family, slices.clone(), node_name))).collect();
    Some(HealthCheck { port, endpoints })
}

/// Addresses with a ready endpoint on this node, whatever the port (HCN-06). Terminating endpoints
/// do not count, so that load balancers turn away while those still answer.
fn local_ready<'s>(
    family: Family,
    slices: impl Iterator<Item = &'s Slice>,
    node_name: &str,
) -> usize {
    let mut merged: BTreeMap<_, &Endpoint> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.family == family) {
        for port in &slice.ports {
            for endpoint in &slice.endpoints {
                let key = (port.name.as_str(), port.protocol, endpoint.addr, port.port);
                // As for backends: a terminating entry never takes another one's place (EPS-11).
                if !endpoint.terminating || !merged.contains_key(&key) {
                    merged.insert(key, endpoint);
                }
            }
        }
    }
    let here = |endpoint: &&Endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node_name);
    let ready: BTreeSet<_> = merged.into_values().filter(here).map(|e| e.addr).collect();
    ready.len()
}
