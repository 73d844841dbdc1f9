//! What was read from the pinned maps.

use crate::dataplane::read::{
    AddressRow, AffinityRow, BackendRow, CounterRow, DropRow, FlowRow, FrontendRow, ServiceRow,
};

/// Rows as the maps hold them. What was not asked for is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
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
