//! The tables that are shown, made of what was read.

use serde::Serialize;

use super::columns::address;
use super::columns::counter::Counter;
use super::columns::frontend::Frontend;
use super::columns::service::Service;
use super::row_filter::RowFilter;
use super::tables::Tables;
use crate::cli::args::DumpTable;
use crate::dataplane::read::{AddressRow, AffinityRow, BackendRow, FlowRow};

/// Rows as they are shown: joined and filtered. A table that was not asked for is `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Shown {
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
pub(crate) enum Rows<'a> {
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
    /// The tables that `what` asks for, with the rows that `filter` leaves.
    pub(crate) fn of(tables: Tables, what: DumpTable, filter: &RowFilter<'_>) -> Self {
        let Tables { frontends, addresses, services, backends, flows, affinity, counters, drops } =
            tables;
        let wanted = |table| what == table || what == DumpTable::All;
        let mut shown = Self::default();
        if wanted(DumpTable::Backends) {
            let mut rows = backends;
            rows.retain(|row| filter.backend(row));
            shown.backends = Some(rows);
        }
        if wanted(DumpTable::Flows) {
            let mut rows = flows;
            rows.retain(|row| filter.flow(row));
            shown.flows = Some(rows);
        }
        if wanted(DumpTable::Affinity) {
            let mut rows = affinity;
            rows.retain(|row| filter.affinity(row));
            shown.affinity = Some(rows);
        }
        if wanted(DumpTable::Counters) {
            let mut rows = Counter::join(counters, &drops);
            rows.retain(|row| filter.counter(row));
            shown.counters = Some(rows);
        }
        if wanted(DumpTable::Addresses) {
            let mut rows = addresses;
            rows.retain(|row| filter.address(row));
            address::sort(&mut rows);
            shown.addresses = Some(rows);
        }
        if wanted(DumpTable::Services) {
            let mut rows = Service::join(services.clone(), &frontends);
            rows.retain(|row| filter.service(row));
            shown.services = Some(rows);
        }
        if wanted(DumpTable::Frontends) {
            let mut rows = Frontend::join(frontends, &services);
            rows.retain(|row| filter.frontend(row));
            shown.frontends = Some(rows);
        }
        shown
    }

    /// The first table that was asked for.
    pub(crate) fn only(&self) -> Option<Rows<'_>> {
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
    pub(crate) fn is_empty(&self) -> bool {
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
