//! Fixtures shared by the tests of plan, model and control.

mod claims;
mod flows;
mod health;
mod node_ports;
mod opt_out;
mod ranges;
mod service;
mod topology;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::model::{
    Algorithm, Endpoint, Family, Protocol, Service, ServiceName, ServicePort, ServiceType, Slice,
    SliceName, SlicePort, TrafficPolicy,
};

use super::{PlanContext, ServicePortPlan, plan_service};

pub(crate) const NODE: &str = "this-node";
pub(crate) const ELSEWHERE: &str = "other-node";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn number(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

/// A port of a Service.
pub(crate) fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol, port: number(port), node_port: None }
}

/// `default/name` with one unnamed TCP port 80.
pub(crate) fn service(name: &str, cluster_ips: &[&str]) -> Service {
    Service {
        name: ServiceName::new("default", name),
        created: None,
        kind: ServiceType::ClusterIp,
        cluster_ips: cluster_ips.iter().map(|text| ip(text)).collect(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy_written: TrafficPolicy::Cluster,
        health_check_node_port: None,
        affinity_seconds: None,
        algorithm: None,
        ports: vec![port("", Protocol::Tcp, 80)],
    }
}

/// An endpoint in the notation of the reference: `R`eady, serving and `T`erminating, terminating
/// and not serving (`X`), or none of these (`N`); `L`ocal or re`M`ote.
pub(crate) fn endpoint(addr: &str, state: &str) -> Endpoint {
    let has = |letter| state.contains(letter);
    let node = if has('L') { NODE } else { ELSEWHERE };
    Endpoint {
        addr: ip(addr),
        ready: has('R'),
        serving: has('R') || has('T'),
        terminating: has('T') || has('X'),
        node: Some(node.into()),
        zone_hints: [].into(),
        node_hints: [].into(),
    }
}

/// A slice of `default/service` with one unnamed TCP port.
pub(crate) fn slice(name: &str, service: &str, port: u16, endpoints: &[Endpoint]) -> Slice {
    Slice {
        name: SliceName::new("default", name),
        service: service.to_owned(),
        family: endpoints.first().map_or(Family::V4, |endpoint| Family::of(&endpoint.addr)),
        ports: vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: number(port) }],
        endpoints: endpoints.to_vec(),
        triggered: None,
    }
}

pub(crate) fn plan(service: &Service, slices: &[Slice]) -> Vec<ServicePortPlan> {
    plan_with(service, slices, &BTreeSet::new())
}

pub(crate) fn plan_with(
    service: &Service,
    slices: &[Slice],
    local_addresses: &BTreeSet<IpAddr>,
) -> Vec<ServicePortPlan> {
    let context = PlanContext {
        node_name: NODE,
        zone: None,
        local_addresses,
        node_addresses: &[],
        algorithm: Algorithm::RoundRobin,
    };
    plan_service(service, slices.iter(), &context)
}
