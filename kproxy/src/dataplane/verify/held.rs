//! What the maps hold, in their own layouts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use kproxy_common::{
    config::{Config, Uplink},
    net::Addr,
    service::{FrontendKey, FrontendValue, Service, Slot, Word, frontend_flags, service_flags},
};

use crate::{
    dataplane::codec,
    plan::{Scope, ServicePortId},
};

/// What the maps hold at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// What clients dial.
    pub(crate) frontends: BTreeMap<FrontendKey, FrontendValue>,
    /// Flags of addresses as a whole.
    pub(crate) addresses: BTreeMap<Addr, u32>,
    /// Names of service ports.
    pub(crate) names: BTreeMap<u32, ServicePortId>,
    /// Sets in use, by service index.
    pub(crate) sets: BTreeMap<u32, HeldSet>,
    /// Elements of the slot map.
    pub(crate) slots: u32,
    /// Source ranges by service port.
    pub(crate) ranges: BTreeMap<u32, BTreeSet<IpNet>>,
    /// Words of the address filter.
    pub(crate) filter: Vec<u64>,
    /// What the programs are told.
    pub(crate) config: Config,
    /// Source addresses by device.
    pub(crate) uplinks: BTreeMap<u32, Uplink>,
}

/// A set in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeldSet {
    /// Its entry.
    pub(crate) entry: Service,
    /// Its whole run: backends, those that keep their flows, lookup table; as far as the slot map goes.
    pub(crate) run: Vec<Slot>,
}

impl HeldSet {
    /// The set of this entry, if it is in use. `slot` reads a slot.
    pub(crate) fn of(entry: Service, slot: impl Fn(u32) -> Option<Slot>) -> Option<Self> {
        if entry.flags & service_flags::IN_USE == 0 {
            return None;
        }
        let word = codec::word_of(&entry);
        let len = codec::run_len(word, slot(word.first)).max(word.count.into());
        let run = (0..len).map_while(|i| slot(word.first.checked_add(i)?)).collect();
        Some(Self { entry, run })
    }

    pub(super) const fn word(&self) -> Word {
        codec::word_of(&self.entry)
    }
}

impl Held {
    /// Sorts the entries of the frontend map.
    pub(crate) fn take_frontends(&mut self, entries: Vec<(FrontendKey, FrontendValue)>) {
        for (key, value) in entries {
            if key.is_address() {
                self.addresses.insert(key.addr, value.flags);
            } else {
                self.frontends.insert(key, value);
            }
        }
    }

    /// A set that is in use.
    pub(super) fn set(&self, id: u32, scope: Scope) -> Option<&HeldSet> {
        self.sets.get(&codec::index_of(id, scope))
    }

    /// Service ports by name: those whose cluster-wide set is in use.
    pub(super) fn ids(&self) -> HashMap<&ServicePortId, u32> {
        let published =
            self.names.iter().filter(|(id, _)| self.set(**id, Scope::Cluster).is_some());
        published.map(|(id, name)| (name, *id)).collect()
    }

    /// ClusterIPs, by their frontends.
    pub(super) fn cluster_ips(&self) -> BTreeSet<Addr> {
        let flagged = self
            .frontends
            .iter()
            .filter(|(_, value)| value.flags & frontend_flags::CLUSTER_IP != 0);
        flagged.map(|(key, _)| key.addr).collect()
    }
}
