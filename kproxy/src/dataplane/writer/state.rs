//! What the writer knows of the maps, and the questions that it answers from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use kproxy_common::{
    config::Config,
    net::{Addr, Port, proto},
    service::{FrontendKey, FrontendValue, service_port_id},
};

use super::{
    addresses::Addresses,
    allocator::{Allocator, Run},
    maps::{Counted, Maps},
    missing::Missing,
};
use crate::{
    dataplane::{codec, report::Fill, settings::Sizes},
    model::Problem,
    plan::{Scope, ServicePortId, ServicePortPlan},
};

/// The writer and what it knows of the maps.
pub(crate) struct Writer<M> {
    pub(super) maps: Counted<M>,
    pub(super) slots: Allocator,
    pub(super) ids: Allocator,
    /// Service ports in the maps.
    pub(super) service_ports: BTreeMap<ServicePortId, ServicePort>,
    /// Their names by id.
    pub(super) by_id: HashMap<u32, ServicePortId>,
    /// Every frontend in the map, without address entries.
    pub(super) frontends: HashMap<FrontendKey, FrontendValue>,
    pub(super) addresses: Addresses,
    /// Plans that are not, or not wholly, in force.
    pub(super) pending: BTreeMap<ServicePortId, ServicePortPlan>,
    /// Whether something was freed since the pending plans were last tried.
    pub(super) has_room: bool,
    /// Slots that are missing in this pass, and who makes room.
    pub(super) shortage: Shortage,
    /// What was found no room for in the last pass.
    pub(super) missing: Missing,
    /// Capacities that the maps may grow to.
    pub(super) most: Sizes,
    /// Frontends that lead to no known service port: left by a crash.
    pub(super) stray_frontends: HashSet<FrontendKey>,
    /// Ids whose name or sets a crash has left behind.
    pub(super) stray_ids: BTreeSet<u32>,
    /// Source ranges of ids that are no service port: left by a crash.
    pub(super) stray_ranges: Vec<(u32, IpNet)>,
    /// Ids from here on have never been used: their counters are zero.
    pub(super) untouched_from: u32,
    /// Whether a set picks by least connections, or has since this was opened.
    pub(super) counts_connections: bool,
    /// Whether a service port is SCTP's, or was since this was opened.
    pub(super) serves_sctp: bool,
}

/// Sets that have a table, and the room that was asked for in this pass and is not there.
#[derive(Default)]
pub(super) struct Shortage {
    /// The next to lose its table last; `None`: not looked for yet.
    pub(super) tables: Option<Vec<(ServicePortId, Scope)>>,
    /// Slots.
    pub(super) missing: u32,
    /// What the sets that lost theirs go without.
    pub(super) problems: Vec<Problem>,
}

/// A service port in the maps.
#[derive(Debug, Default)]
pub(super) struct ServicePort {
    pub(super) id: u32,
    /// Runs of the cluster-wide and of the local set; `None` for an empty set, and for a word that
    /// leads nowhere.
    pub(super) runs: [Option<Run>; 2],
    /// Frontends in the map that lead here.
    pub(super) frontends: Vec<FrontendKey>,
    /// Endpoints in neither set that keep their UDP flows; `None`: an earlier run has left this
    /// service port, and nothing has been planned for it yet.
    pub(super) serving: Option<Box<[(Addr, Port)]>>,
    /// Source ranges in the map.
    pub(super) ranges: BTreeSet<IpNet>,
}

impl<M: Maps> Writer<M> {
    /// The settings that the programs read.
    pub(crate) fn config(&self) -> Config {
        self.maps.config().get(0).unwrap_or_default()
    }

    /// Changes the settings that the programs read. Whether they changed.
    pub(crate) fn set_config(&self, config: &Config) -> bool {
        self.config() != *config && self.maps.config().write(0, config)
    }

    /// The ranges of ClusterIPs, as many of each family as the programs know. Whether they changed.
    pub(crate) fn set_service_ranges(&self, ranges: &[IpNet]) -> bool {
        let service = codec::encode_service_ranges(ranges);
        let config = Config { service, ..self.config() };
        self.set_config(&config)
    }

    /// Has the programs take no address for a Service's until [`Self::serve`].
    pub(crate) fn hold_back(&self) {
        let filter = self.maps.address_filter();
        (0..filter.len()).for_each(|word| filter.change_bits(word, u64::MAX, 0));
    }

    /// Has them serve what the maps hold.
    pub(crate) fn serve(&self) {
        self.addresses.repair_filter(&self.maps);
    }

    /// The service that a UDP frontend leads to: an address and port as a socket dialled it, so the
    /// address may be one of the node's own.
    pub(crate) fn udp_service(&self, addr: Addr, port: Port) -> Option<u32> {
        let lookup = |addr| self.frontends.get(&FrontendKey::new(addr, port, proto::UDP));
        let found = lookup(addr).or_else(|| lookup(addr.unspecified_of_family()));
        found.map(|value| value.internal)
    }

    /// Whether a backend may keep what it was given of the service port that owns service `index`:
    /// it is in one of the sets, or serves all the same (CT-05). Unknown as long as nothing has
    /// been planned: then it may.
    pub(crate) fn serves(&self, index: u32, addr: Addr, port: Port) -> bool {
        let id = service_port_id(index);
        let Some(owner) = self.by_id.get(&id).and_then(|name| self.service_ports.get(name)) else {
            return false;
        };
        let Some(serving) = &owner.serving else { return true };
        let in_set = |scope| {
            let Some(set) = self.maps.services().get(codec::index_of(id, scope)) else {
                return false;
            };
            let word = codec::word_of(&set);
            (0..u32::from(word.count)).any(|i| {
                let slot = self.maps.slots().get(word.first.wrapping_add(i));
                slot.is_some_and(|slot| slot.addr == addr && slot.port == port)
            })
        };
        in_set(Scope::Cluster) || in_set(Scope::Local) || serving.contains(&(addr, port))
    }

    /// Generation of a service's word.
    pub(crate) fn generation(&self, index: u32) -> Option<u16> {
        self.maps.services().get(index).map(|set| codec::word_of(&set).generation)
    }

    /// Whether open connections are counted: a service port picks by their number, or has done so
    /// and its connections go on.
    pub(crate) const fn counts_connections(&self) -> bool {
        self.counts_connections
    }

    /// Whether a service port is SCTP's, or was since the maps were opened.
    pub(crate) const fn serves_sctp(&self) -> bool {
        self.serves_sctp
    }

    /// Whether NodePorts answer on a loopback address.
    pub(crate) fn serves_loopback(&self) -> bool {
        self.addresses.serves_loopback()
    }

    /// Fill of FRONTENDS, SERVICES and SLOTS.
    pub(crate) fn fills(&self) -> [Fill; 3] {
        let frontends = self.frontends.len() + self.addresses.entries();
        [
            Fill { used: frontends as u32, capacity: self.maps.frontends_capacity() },
            Fill { used: self.ids.used() * 2, capacity: self.maps.services().len() },
            Fill { used: self.slots.used(), capacity: self.slots.capacity() },
        ]
    }
}
