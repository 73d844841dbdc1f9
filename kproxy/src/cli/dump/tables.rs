//! What was read from the pinned maps, and the tables made of it.

use serde::Serialize;

use super::columns::address;
use super::columns::counter::Counter;
use super::columns::frontend::Frontend;
use super::columns::service::Service;
use super::row_filter::RowFilter;
use crate::cli::args::DumpTable;
use crate::dataplane::read::{
    AddressRow, AffinityRow, BackendRow, CounterRow, DropRow, FlowRow, FrontendRow, ServiceRow,
};

/// Rows as the maps hold them. What was not asked for is empty.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Frontends.
    pub frontends: Vec<FrontendRow>,
    /// Address entries.
    pub addresses: Vec<AddressRow>,
    /// Service ports.
    pub services: Vec<ServiceRow>,
    /// Backends, once a set.
    pub backends: Vec<BackendRow>,
    /// Connections on the packet path.
    pub flows: Vec<FlowRow>,
    /// Clients that are remembered.
    pub affinity: Vec<AffinityRow>,
    /// Counters, once a set.
    pub counters: Vec<CounterRow>,
    /// Drops, once a set and reason.
    pub drops: Vec<DropRow>,
}

/// Rows as they are shown: joined and filtered. A table that was not asked for is `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    /// `dump frontends`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontends: Option<Vec<Frontend>>,
    /// `dump services`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// `dump backends`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<BackendRow>>,
    /// `dump flows`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<Vec<FlowRow>>,
    /// `dump affinity`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Vec<AffinityRow>>,
    /// `dump counters`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<Vec<Counter>>,
    /// `dump addresses`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<AddressRow>>,
}

/// The rows of one table.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Rows<'a> {
    /// `dump frontends`
    Frontends(&'a [Frontend]),
    /// `dump services`
    Services(&'a [Service]),
    /// `dump backends`
    Backends(&'a [BackendRow]),
    /// `dump flows`
    Flows(&'a [FlowRow]),
    /// `dump affinity`
    Affinity(&'a [AffinityRow]),
    /// `dump counters`
    Counters(&'a [Counter]),
    /// `dump addresses`
    Addresses(&'a [AddressRow]),
}

impl Shown {
    /// The first table that was asked for.
    pub fn only(&self) -> Option<Rows<'_>> {
        let Self { frontends, services, backends, flows, affinity, counters, addresses } = self;
        (frontends.as_deref().map(Rows::Frontends))
            .or_else(|| services.as_deref().map(Rows::Services))
            .or_else(|| backends.as_deref().map(Rows::Backends))
            .or_else(|| flows.as_deref().map(Rows::Flows))
            .or_else(|| affinity.as_deref().map(Rows::Affinity))
            .or_else(|| counters.as_deref().map(Rows::Counters))
            .or_else(|| addresses.as_deref().map(Rows::Addresses))
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        fn none<R>(rows: Option<&Vec<R>>) -> bool {
            rows.is_none_or(Vec::is_empty)
        }
        let Self { frontends, services, backends, flows, affinity, counters, addresses } = self;
        none(frontends.as_ref())
            && none(services.as_ref())
            && none(backends.as_ref())
            && none(flows.as_ref())
            && none(affinity.as_ref())
            && none(counters.as_ref())
            && none(addresses.as_ref())
    }
}

impl Tables {
    /// The tables that `what` asks for.
    pub fn show(self, what: DumpTable, filter: &RowFilter<'_>) -> Shown {
        let wanted = |table| what == table || what == DumpTable::All;
        let mut shown = Shown::default();
        if wanted(DumpTable::Backends) {
            let mut rows = self.backends;
            rows.retain(|row| filter.backend(row));
            shown.backends = Some(rows);
        }
        if wanted(DumpTable::Flows) {
            let mut rows = self.flows;
            rows.retain(|row| filter.flow(row));
            shown.flows = Some(rows);
        }
        if wanted(DumpTable::Affinity) {
            let mut rows = self.affinity;
            rows.retain(|row| filter.affinity(row));
            shown.affinity = Some(rows);
        }
        if wanted(DumpTable::Counters) {
            let mut rows = Counter::join(self.counters, &self.drops);
            rows.retain(|row| filter.counter(row));
            shown.counters = Some(rows);
        }
        if wanted(DumpTable::Addresses) {
            let mut rows = self.addresses;
            rows.retain(|row| filter.address(row));
            address::sort(&mut rows);
            shown.addresses = Some(rows);
        }
        if wanted(DumpTable::Services) {
            let mut rows = Service::join(self.services.clone(), &self.frontends);
            rows.retain(|row| filter.service(row));
            shown.services = Some(rows);
        }
        if wanted(DumpTable::Frontends) {
            let mut rows = Frontend::join(self.frontends, &self.services);
            rows.retain(|row| filter.frontend(row));
            shown.frontends = Some(rows);
        }
        shown
    }
}
