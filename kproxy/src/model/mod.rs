//! What kproxy knows of Services, EndpointSlices, ServiceCIDRs and its own Node, in its own words.
//!
//! Values here are valid by construction: ports are never 0, addresses are canonical (no v4-mapped
//! IPv6), lists hold only what a data path can use. Whatever could not be used became a
//! [`Problem`] in [`crate::source`]. [`Model`] is a synchronous store: it takes whole objects and
//! answers which Services are touched. No IO, no clock, no kube client, no aya.

mod net;
mod node;
mod pod;
mod problem;
mod service;
mod service_cidr;
mod slice;
mod store;

#[cfg(test)]
mod tests;

pub use net::{Family, Protocol};
pub(crate) use node::Node;
pub(crate) use pod::{Pod, PodName};
pub(crate) use problem::Problem;
pub use service::Algorithm;
pub(crate) use service::{Service, ServiceName, ServicePort, ServiceType, TrafficPolicy};
pub(crate) use service_cidr::{ServiceCidr, ServiceCidrName};
pub(crate) use slice::{Endpoint, Slice, SliceName, SlicePort};
pub(crate) use store::{Model, Touched};
