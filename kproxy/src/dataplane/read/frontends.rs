//! Frontends, and what is known of addresses as a whole.

use std::{collections::BTreeSet, net::IpAddr};

use kproxy_common::{
    abi::map,
    service::{FrontendKey, FrontendValue, frontend_flags, service_port_id},
};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{AddressRow, FrontendRow},
};
use crate::{
    dataplane::{codec, kernel::hash},
    plan::Protocol,
};

impl Pins {
    /// Frontends, sorted by name, kind, address, port.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn frontends(&self) -> Result<Vec<FrontendRow>, ReadError> {
        let names = self.names()?;
        let mut rows: Vec<_> = self
            .frontend_entries()?
            .into_iter()
            .filter(|(key, _)| !key.is_address())
            .map(|(key, value)| {
                let id = service_port_id(value.internal);
                FrontendRow {
                    kinds: codec::kinds_of(value.flags),
                    addr: key.addr.into(),
                    port: key.port.get(),
                    protocol: Protocol::from_number(key.proto),
                    internal: codec::scope_of(value.internal),
                    external: codec::scope_of(value.external),
                    sources: codec::sources_of(value.flags),
                    id,
                    service: names.get(&id).cloned(),
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            let key = |row: &FrontendRow| (row.id, row.kinds.first().copied(), row.addr, row.port);
            (&a.service, key(a)).cmp(&(&b.service, key(b)))
        });
        Ok(rows)
    }

    /// What is known of addresses as a whole, sorted by address.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn addresses(&self) -> Result<Vec<AddressRow>, ReadError> {
        let mut rows: Vec<_> = self
            .frontend_entries()?
            .into_iter()
            .filter(|(key, _)| key.is_address())
            .map(|(key, value)| AddressRow {
                addr: key.addr.into(),
                node: value.flags & frontend_flags::NODE_ADDRESS != 0,
                service: value.flags & frontend_flags::SERVICE_ADDRESS != 0,
            })
            .collect();
        rows.sort_by_key(|row| row.addr);
        Ok(rows)
    }

    /// Addresses of this node, as the programs know them.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn node_addresses(&self) -> Result<BTreeSet<IpAddr>, ReadError> {
        Ok(self.addresses()?.iter().filter(|row| row.node).map(|row| row.addr).collect())
    }

    pub(super) fn frontend_entries(&self) -> Result<Vec<(FrontendKey, FrontendValue)>, ReadError> {
        hash::read(&self.frontends).map_err(ReadError::of_map(map::FRONTENDS))
    }
}
