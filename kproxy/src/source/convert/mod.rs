//! Kubernetes objects to model values.
//!
//! Each conversion keeps every good part of an object and names each bad one.

mod ip;
mod node;
mod pod;
mod service;
mod service_cidr;
mod slice;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::num::NonZeroU16;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use ip::{parse_cidr, parse_ip};
pub(crate) use node::node;
pub(crate) use pod::pod;
pub(crate) use service::PROXY_NAME_LABEL;
pub(crate) use service::service;
pub(crate) use service_cidr::service_cidr;
pub(crate) use slice::HEADLESS_LABEL;
pub(crate) use slice::slice;

use crate::model::{PodName, Problem, Protocol, ServiceCidrName, ServiceName, SliceName};

/// Namespace and name of a Service.
pub(crate) fn service_key(meta: &ObjectMeta) -> ServiceName {
    ServiceName::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Namespace and name of an EndpointSlice.
pub(crate) fn slice_key(meta: &ObjectMeta) -> SliceName {
    SliceName::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Name of a ServiceCIDR.
pub(crate) fn service_cidr_key(meta: &ObjectMeta) -> ServiceCidrName {
    ServiceCidrName(meta.name.clone().unwrap_or_default())
}

/// Namespace and name of a Pod.
pub(crate) fn pod_key(meta: &ObjectMeta) -> PodName {
    PodName::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Collects the problems of one object.
struct ObjectProblems {
    object: String,
    list: Vec<Problem>,
}

impl ObjectProblems {
    fn new(object: String) -> Self {
        Self { object, list: Vec::new() }
    }

    fn add(&mut self, what: impl Into<String>, remedy: &str) {
        self.list.push(Problem::new(self.object.as_str(), what, remedy));
    }
}

fn has_label(meta: &ObjectMeta, label: &str) -> bool {
    meta.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

/// `None` for 0 and for what is no port number at all.
fn port_number(number: i32) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

/// The API server fills in TCP where nothing is written (EPS-05).
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// Why an address can be neither frontend nor backend. Loopback: NodePorts and `route_localnet`
/// would open the node's own daemons to the network (EPS-18, CVE-2020-8558). Unspecified: the maps
/// use it for NodePorts.
fn unusable(ip: &IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_loopback() => Some("is a loopback address"),
        _ if ip.is_unspecified() => Some("is the unspecified address"),
        _ if ip.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        _ => None,
    }
}
