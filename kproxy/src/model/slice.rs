//! EndpointSlices.

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::{Family, Protocol, ServiceName};

/// Namespace and name of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SliceName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl SliceName {
    /// From its two parts.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`
impl std::fmt::Display for SliceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An EndpointSlice that names its Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slice {
    /// Namespace and name.
    pub name: SliceName,
    /// Name of the Service, in the same namespace (EPS-01).
    pub service: String,
    /// Family of all its addresses (EPS-02).
    pub family: Family,
    /// Ports; each endpoint has all of them (EPS-13).
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When the pods last changed of which it tells, in microseconds since 1970 (EPS-20).
    pub triggered: Option<i64>,
}

impl Slice {
    /// The Service that the slice belongs to.
    pub(crate) fn service_name(&self) -> ServiceName {
        ServiceName::new(self.name.namespace.as_str(), self.service.as_str())
    }
}

/// A port of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SlicePort {
    /// Name of the Service's port; empty is the unnamed one (EPS-03).
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the endpoint.
    pub port: NonZeroU16,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// Its first address, the only one that counts (EPS-06).
    pub addr: IpAddr,
    /// `conditions.ready`, true when not given (EPS-07).
    pub ready: bool,
    /// `conditions.serving`, true when not given.
    pub serving: bool,
    /// `conditions.terminating`, false when not given.
    pub terminating: bool,
    /// Node it runs on; `None` is local to no node (EPS-08).
    pub node: Option<Box<str>>,
    /// `hints.forZones` (EPS-09).
    pub zone_hints: Box<[Box<str>]>,
    /// `hints.forNodes`.
    pub node_hints: Box<[Box<str>]>,
}

impl Endpoint {
    /// Used only while no endpoint is ready (TOP-06, TOP-07).
    pub(crate) const fn is_serving_terminating(&self) -> bool {
        self.serving && self.terminating
    }
}
