//! One Service in, its service ports out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{Family, Protocol, Service, ServicePort, Slice, TrafficPolicy};

use super::context::PlanContext;
use super::topology::{Candidate, Categorized, Uses, categorize};
use super::{
    Backend, Frontend, FrontendKind, Scope, ServicePortId, ServicePortPlan, Sources, ranges,
};

/// Plans a Service: one [`ServicePortPlan`] a port and family that has a cluster IP (SEL-03).
///
/// Pure: the same input gives the same plan, whatever came before. `slices` must come in a stable
/// order (by name); it decides which of two clashing entries for the same endpoint counts (EPS-11).
///
/// Which set a sender gets is written into each frontend:
///
/// | frontend | internal (pods, this node) | external |
/// |---|---|---|
/// | ClusterIP | internalTrafficPolicy | internalTrafficPolicy (VER-02 to VER-04) |
/// | NodePort, externalIP, load balancer | cluster | externalTrafficPolicy (VER-05 to VER-07) |
///
/// Without `--cluster-cidr` kube-proxy cannot tell pods from strangers and gives both the external
/// set (VER-08). kproxy knows the pods of this node by their sockets and by the device that their packets
/// come in by; pods of other nodes come in by an uplink and are strangers (VER-15).
///
/// A cluster IP that is bound to one of the node's own devices (node-local DNS) gets no frontend
/// here: whoever bound it answers.
pub(crate) fn plan_service<'s>(
    service: &Service,
    slices: impl Iterator<Item = &'s Slice> + Clone,
    context: &PlanContext<'_>,
) -> Vec<ServicePortPlan> {
    let mut plans = Vec::new();
    for family in [Family::V4, Family::V6] {
        let Some(cluster_ip) = service.cluster_ip(family) else { continue };
        for port in &service.ports {
            let ranges = ranges::of(service, family, context);
            let sources =
                ranges.as_ref().map_or(Sources::All, |r| Sources::Ranges { node: r.node });
            let frontends = frontends(service, port, cluster_ip, sources, context);
            if frontends.is_empty() {
                continue;
            }
            let candidates = candidates(port, family, slices.clone(), context.node_name);
            let uses = uses(service, &frontends);
            let sets = categorize(&candidates, uses, context.node_name, context.zone);
            plans.push(ServicePortPlan {
                id: ServicePortId {
                    namespace: service.name.namespace.clone(),
                    name: service.name.name.clone(),
                    port: port.name.clone(),
                    protocol: port.protocol,
                    family,
                },
                frontends,
                serving: serving(port, &candidates, &sets),
                cluster: sets.cluster,
                local: sets.local,
                created: service.created,
                affinity_seconds: service.affinity_seconds,
                algorithm: service.algorithm.unwrap_or(context.algorithm),
                source_ranges: ranges.map_or_else(Vec::new, |ranges| ranges.nets),
            });
        }
    }
    plans
}

/// Endpoints that keep the UDP flows they have: ready, terminating, hints and policies do not
/// matter for those, only whether they serve (CT-05). Those in a set are known already.
fn serving(
    port: &ServicePort,
    candidates: &[Candidate<'_>],
    sets: &Categorized,
) -> Vec<(IpAddr, u16)> {
    if port.protocol != Protocol::Udp {
        return Vec::new();
    }
    let local = sets.local.iter().flat_map(|set| &set.backends);
    let used: BTreeSet<_> = sets.cluster.backends.iter().chain(local).collect();
    let others = candidates.iter().filter(|c| c.endpoint.serving && !used.contains(&c.backend));
    // Sorted: the candidates are.
    others.map(|c| (c.backend.addr, c.backend.port)).collect()
}

/// SVC-20 and SVC-21, of what this node serves.
fn uses(service: &Service, frontends: &[Frontend]) -> Uses {
    let external = frontends.iter().any(|f| f.kind != FrontendKind::ClusterIp);
    let internal_local = service.internal_policy == TrafficPolicy::Local;
    let external_local = service.external_policy() == TrafficPolicy::Local;
    Uses {
        cluster: !internal_local || external,
        local: internal_local || (external_local && external),
    }
}

fn frontends(
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    sources: Sources,
    context: &PlanContext<'_>,
) -> Vec<Frontend> {
    let family = Family::of(&cluster_ip);
    let scope = |policy| match policy {
        TrafficPolicy::Cluster => Scope::Cluster,
        TrafficPolicy::Local => Scope::Local,
    };
    let external_scope = scope(service.external_policy());
    let outside = |kind, addr, port| Frontend {
        kind,
        addr,
        port,
        internal: Scope::Cluster,
        external: external_scope,
        sources: Sources::All,
    };
    let mut all = Vec::new();
    if !context.local_addresses.contains(&cluster_ip) {
        let scope = scope(service.internal_policy);
        all.push(Frontend {
            kind: FrontendKind::ClusterIp,
            addr: cluster_ip,
            port: port.port.get(),
            internal: scope,
            external: scope,
            sources: Sources::All,
        });
    }
    if let Some(node_port) = port.node_port {
        all.push(outside(FrontendKind::NodePort, family.unspecified(), node_port.get()));
    }
    let of_family = |ips: &[IpAddr]| {
        ips.iter().copied().filter(|ip| Family::of(ip) == family).collect::<Vec<_>>()
    };
    for ip in of_family(&service.external_ips) {
        all.push(outside(FrontendKind::ExternalIp, ip, port.port.get()));
    }
    let load_balancer_ips = of_family(&service.load_balancer_ips);
    for ip in &load_balancer_ips {
        all.push(outside(FrontendKind::LoadBalancer, *ip, port.port.get()));
    }
    // LBR-06: an address that is also listed as another kind is restricted all the same.
    for frontend in &mut all {
        if frontend.port == port.port.get() && load_balancer_ips.contains(&frontend.addr) {
            frontend.sources = sources;
        }
    }
    all.sort_unstable_by_key(|f| (f.kind, f.addr, f.port));
    // One address may be named twice, or as externalIP and load-balancer address: first kind wins.
    let mut seen = BTreeSet::new();
    all.retain(|f| seen.insert((f.addr, f.port)));
    all
}

/// The endpoints of a service port: same port name and protocol (EPS-13), merged over the slices
/// (EPS-11).
fn candidates<'s>(
    port: &ServicePort,
    family: Family,
    slices: impl Iterator<Item = &'s Slice>,
    node_name: &str,
) -> Vec<Candidate<'s>> {
    let mut merged: BTreeMap<(IpAddr, u16), Candidate<'s>> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.family == family) {
        let ports =
            slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for number in ports.map(|p| p.port.get()) {
            for endpoint in &slice.endpoints {
                let backend = Backend {
                    addr: endpoint.addr,
                    port: number,
                    local: endpoint.node.as_deref() == Some(node_name),
                };
                let key = (backend.addr, backend.port);
                // A pod network may reuse the address of a terminating pod: the running one counts.
                if !endpoint.terminating || !merged.contains_key(&key) {
                    merged.insert(key, Candidate { backend, endpoint });
                }
            }
        }
    }
    merged.into_values().collect()
}
