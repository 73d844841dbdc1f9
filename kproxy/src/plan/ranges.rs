//! Who may dial the load-balancer addresses of a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Service};

use super::context::PlanContext;

/// The source ranges of one family of a Service.
pub(super) struct Ranges {
    /// Sorted, adjacent ones joined, none within another.
    pub(super) nets: Vec<IpNet>,
    /// They hold this node.
    pub(super) node: bool,
}

/// The ranges that apply; `None`: the load-balancer addresses of the family are open to all
/// (LBR-07, LBR-08) or there is none.
pub(super) fn of(service: &Service, family: Family, context: &PlanContext<'_>) -> Option<Ranges> {
    let vips = || service.load_balancer_ips.iter().filter(|ip| Family::of(ip) == family);
    if !service.restricts_sources(family) || vips().next().is_none() {
        return None;
    }
    let mut nets: Vec<IpNet> = service
        .source_ranges
        .iter()
        .filter(|net| Family::of(&net.addr()) == family)
        .copied()
        .collect();
    let own = own_addresses(family, context);
    let node = nets.iter().any(|net| own.iter().any(|ip| net.contains(ip)));
    if node {
        // LBR-03: where a load-balancer address is bound on the node, the node's packets to it
        // carry it as their source, too.
        nets.extend(vips().map(|ip| IpNet::from(*ip)));
    }
    Some(Ranges { nets: IpNet::aggregate(&nets), node })
}

/// The address of the Node object as kube-proxy takes it (NODE-02); without one, those of the
/// devices: a process may bind to any of them.
fn own_addresses(family: Family, context: &PlanContext<'_>) -> BTreeSet<IpAddr> {
    let of_family = |ip: &&IpAddr| Family::of(ip) == family;
    let told: BTreeSet<_> = context.node_addresses.iter().filter(of_family).copied().collect();
    if !told.is_empty() {
        return told;
    }
    let bound = context.local_addresses.iter().filter(of_family);
    bound.filter(|ip| !ip.is_loopback()).copied().collect()
}
