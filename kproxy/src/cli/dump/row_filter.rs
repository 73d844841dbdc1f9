//! Which rows are shown: every given condition must hold.
//!
//! Address and port number must hold for one and the same endpoint. A frontend has one; a flow
//! three (client, frontend, backend), a remembered client two (its own, which has no port, and the
//! backend's); a backend its own and those that are dialled to reach it;
//! services and counters have all their frontends and backends.

use std::collections::HashMap;
use std::net::IpAddr;

use super::columns::counter::Counter;
use super::columns::frontend::Frontend;
use super::columns::service::Service;
use super::tables::Tables;
use crate::cli::args::FilterArgs;
use crate::cli::values::PortFilter;
use crate::dataplane::read::{
    AddressRow, AffinityClient, AffinityRow, BackendRow, FlowRow, SocketRow,
};
use crate::plan::ServicePortId;

/// An address and a port.
type Endpoint = (IpAddr, u16);

/// The conditions, and what is needed to decide them.
pub(crate) struct RowFilter<'a> {
    args: &'a FilterArgs,
    /// Addresses that a NodePort's unspecified address stands for.
    node_addresses: Vec<IpAddr>,
    /// What is dialled to reach a service port, by its number.
    frontends: HashMap<u32, Vec<Endpoint>>,
    /// Where it goes.
    backends: HashMap<u32, Vec<Endpoint>>,
}

impl<'a> RowFilter<'a> {
    /// Prepares the conditions for the rows of `tables`.
    pub(crate) fn new(args: &'a FilterArgs, tables: &Tables) -> Self {
        let mut filter = Self {
            args,
            node_addresses: Vec::new(),
            frontends: HashMap::new(),
            backends: HashMap::new(),
        };
        if filter.wants_endpoint() {
            let of_node = tables.addresses.iter().filter(|row| row.node);
            filter.node_addresses = of_node.map(|row| row.addr).collect();
            for row in &tables.frontends {
                filter.frontends.entry(row.id).or_default().push((row.addr, row.port));
            }
            for row in &tables.backends {
                filter.backends.entry(row.id).or_default().push((row.addr, row.port));
            }
        }
        filter
    }

    /// Whether there is a condition on addresses or port numbers.
    fn wants_endpoint(&self) -> bool {
        self.args.address.is_some() || matches!(self.args.port, Some(PortFilter::Number(_)))
    }

    /// Whether nothing is filtered out.
    pub(crate) fn is_empty(&self) -> bool {
        let FilterArgs { namespace, service, address, port } = self.args;
        namespace.is_none() && service.is_none() && address.is_none() && port.is_none()
    }

    /// The conditions on names. A service port without a name meets none.
    fn name(&self, id: Option<&ServicePortId>) -> bool {
        let FilterArgs { namespace, service, port, .. } = self.args;
        let Some(id) = id else {
            return namespace.is_none()
                && service.is_none()
                && !matches!(port, Some(PortFilter::Name(_)));
        };
        let same = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        let port_name = match port {
            Some(PortFilter::Name(name)) => *name == id.port,
            Some(PortFilter::Number(_)) | None => true,
        };
        port_name
            && same(namespace, &id.namespace)
            && service.as_ref().is_none_or(|want| want.matches(id))
    }

    /// The conditions on address and port number.
    fn endpoint(&self, (addr, port): Endpoint) -> bool {
        let port = match self.args.port {
            Some(PortFilter::Number(number)) => port == number,
            Some(PortFilter::Name(_)) | None => true,
        };
        port && self.args.address.is_none_or(|range| {
            let of_node = |node: &IpAddr| node.is_ipv4() == addr.is_ipv4() && range.contains(node);
            range.contains(&addr)
                || addr.is_unspecified() && self.node_addresses.iter().any(of_node)
        })
    }

    fn any(&self, mut endpoints: impl Iterator<Item = Endpoint>) -> bool {
        !self.wants_endpoint() || endpoints.any(|endpoint| self.endpoint(endpoint))
    }

    fn any_of(&self, map: &HashMap<u32, Vec<Endpoint>>, id: u32) -> bool {
        self.any(map.get(&id).into_iter().flatten().copied())
    }

    fn service_port(&self, id: u32, name: Option<&ServicePortId>) -> bool {
        self.name(name) && (self.any_of(&self.frontends, id) || self.any_of(&self.backends, id))
    }

    /// A row of `dump frontends`.
    pub(crate) fn frontend(&self, Frontend { row, .. }: &Frontend) -> bool {
        self.name(row.service.as_ref()) && self.any([(row.addr, row.port)].into_iter())
    }

    /// A row of `dump services`.
    pub(crate) fn service(&self, Service { row, .. }: &Service) -> bool {
        self.service_port(row.id, row.service.as_ref())
    }

    /// A row of `dump backends`.
    pub(crate) fn backend(&self, row: &BackendRow) -> bool {
        self.name(row.service.as_ref())
            && (self.any([(row.addr, row.port)].into_iter())
                || self.any_of(&self.frontends, row.id))
    }

    /// A row of `dump flows`.
    pub(crate) fn flow(&self, row: &FlowRow) -> bool {
        let ends = [row.client, row.frontend, row.backend].map(|end| (end.ip(), end.port()));
        self.name(row.service.as_ref()) && self.any(ends.into_iter())
    }

    /// A row of `sockets`.
    pub(crate) fn socket(&self, row: &SocketRow) -> bool {
        let ends = [row.local, row.frontend, row.backend].map(|end| (end.ip(), end.port()));
        self.name(row.service.as_ref()) && self.any(ends.into_iter())
    }

    /// A row of `dump affinity`. Clients have no port: a condition on port numbers is about the
    /// backend.
    pub(crate) fn affinity(&self, row: &AffinityRow) -> bool {
        let client = match row.client {
            AffinityClient::Address(addr) => Some((addr, 0)),
            AffinityClient::Node | AffinityClient::Netns(_) => None,
        };
        let ends = [(row.addr, row.port)].into_iter().chain(client);
        self.name(row.service.as_ref()) && self.any(ends)
    }

    /// A row of `dump counters`.
    pub(crate) fn counter(&self, Counter { owner, .. }: &Counter) -> bool {
        match owner.id {
            Some(id) => self.service_port(id, owner.service.as_ref()),
            None => self.is_empty(),
        }
    }

    /// A row of `dump addresses`. They belong to no service: a condition on one hides them.
    pub(crate) fn address(&self, row: &AddressRow) -> bool {
        let FilterArgs { namespace, service, address, port } = self.args;
        let of_service = namespace.is_some() || service.is_some() || port.is_some();
        !of_service && address.is_none_or(|range| range.contains(&row.addr))
    }
}
