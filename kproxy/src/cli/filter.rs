//! Which rows are shown: every given condition must hold.
//!
//! Address and port must hold for one and the same endpoint of the row: a frontend row has one, a
//! flow three (client, frontend, backend); services and counters have those of all their frontends
//! and backends, backends their own and those of their frontends.

use std::collections::HashMap;
use std::net::IpAddr;

use super::args::FilterArgs;
use super::rows::address::Address;
use super::rows::backend::Backend;
use super::rows::counter::Counter;
use super::rows::flow::Flow;
use super::rows::frontend::Frontend;
use super::rows::service::Service;
use super::rows::{Endpoint, ServicePort};
use super::snapshot::Snapshot;
use super::values::PortFilter;

/// The conditions, and what is needed to decide them.
pub struct Filter<'a> {
    args: &'a FilterArgs,
    /// Addresses that a NodePort's unspecified address stands for.
    node_addresses: Vec<IpAddr>,
    /// What is dialled and where it goes, by service port id. Empty if no condition needs it.
    frontends: HashMap<u32, Vec<Endpoint>>,
    backends: HashMap<u32, Vec<Endpoint>>,
}

impl<'a> Filter<'a> {
    /// Prepares the conditions for the rows of `snapshot`.
    pub fn new(args: &'a FilterArgs, snapshot: &Snapshot) -> Self {
        let mut filter = Self {
            args,
            node_addresses: snapshot.node_addresses(),
            frontends: HashMap::new(),
            backends: HashMap::new(),
        };
        if filter.wants_endpoint() {
            for row in snapshot.frontends() {
                let of_service = filter.frontends.entry(row.service.service_port_id);
                of_service.or_default().push(row.endpoint);
            }
            for row in snapshot.backends() {
                let of_service = filter.backends.entry(row.service.service_port_id);
                of_service.or_default().push(row.endpoint);
            }
        }
        filter
    }

    /// Whether there is a condition on addresses or port numbers.
    fn wants_endpoint(&self) -> bool {
        self.args.address.is_some() || matches!(self.args.port, Some(PortFilter::Number(_)))
    }

    /// Whether nothing is filtered out.
    pub fn is_empty(&self) -> bool {
        let FilterArgs { namespace, service, address, port } = self.args;
        namespace.is_none() && service.is_none() && address.is_none() && port.is_none()
    }

    fn name(&self, port: &ServicePort) -> bool {
        let same = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        let service = self.args.service.as_ref().is_none_or(|want| {
            same(&want.namespace, &port.namespace)
                && want.name == port.service
                && same(&want.port, &port.port_name)
        });
        let port_name = match &self.args.port {
            Some(PortFilter::Name(name)) => *name == port.port_name,
            Some(PortFilter::Number(_)) | None => true,
        };
        service && port_name && same(&self.args.namespace, &port.namespace)
    }

    fn endpoint(&self, endpoint: &Endpoint) -> bool {
        let port = match self.args.port {
            Some(PortFilter::Number(number)) => endpoint.port == number,
            Some(PortFilter::Name(_)) | None => true,
        };
        port && self.args.address.is_none_or(|range| {
            if !endpoint.address.is_unspecified() {
                return range.contains(&endpoint.address);
            }
            let same_family = |addr: &&IpAddr| addr.is_ipv4() == endpoint.address.is_ipv4();
            self.node_addresses.iter().filter(same_family).any(|addr| range.contains(addr))
                || range.contains(&endpoint.address)
        })
    }

    fn any(&self, endpoints: &[Endpoint]) -> bool {
        !self.wants_endpoint() || endpoints.iter().any(|endpoint| self.endpoint(endpoint))
    }

    fn of_service(&self, map: &HashMap<u32, Vec<Endpoint>>, port: &ServicePort) -> bool {
        map.get(&port.service_port_id).is_some_and(|endpoints| self.any(endpoints))
    }

    fn service_port(&self, port: &ServicePort) -> bool {
        self.name(port)
            && (!self.wants_endpoint()
                || self.of_service(&self.frontends, port)
                || self.of_service(&self.backends, port))
    }

    /// A row of `dump frontends`.
    pub fn frontend(&self, row: &Frontend) -> bool {
        self.name(&row.service) && self.any(&[row.endpoint])
    }

    /// A row of `dump services`.
    pub fn service(&self, row: &Service) -> bool {
        self.service_port(&row.service)
    }

    /// A row of `dump backends`.
    pub fn backend(&self, row: &Backend) -> bool {
        self.name(&row.service)
            && (self.any(&[row.endpoint]) || self.of_service(&self.frontends, &row.service))
    }

    /// A row of `dump flows`.
    pub fn flow(&self, row: &Flow) -> bool {
        self.name(&row.service) && self.any(&[row.client, row.frontend, row.backend])
    }

    /// A row of `dump counters`.
    pub fn counter(&self, row: &Counter) -> bool {
        match &row.service_port {
            Some(port) => self.service_port(port),
            None => self.is_empty(),
        }
    }

    /// A row of `dump addresses`: they belong to no service, so other conditions hide them.
    pub fn address(&self, row: &Address) -> bool {
        let FilterArgs { namespace, service, address, port } = self.args;
        let of_service = namespace.is_some() || service.is_some() || port.is_some();
        !of_service && address.is_none_or(|range| range.contains(&row.address))
    }
}
