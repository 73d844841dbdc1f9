//! The maps as the writer sees them: the kernel's, or memory in tests.

use std::io;

use ipnet::IpNet;
use kproxy_common::{
    config::Config,
    service::{FrontendKey, FrontendValue, Name, Service, Slot},
};

use crate::dataplane::kernel::memory::Memory;

/// Why a map refused a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// No room.
    Full,
    /// Anything else, in the kernel's words.
    Failed(String),
}

/// What the writer needs of the maps. Each `set_` and `remove_` is one `bpf()` call; what is
/// reached through [`Memory`] needs none.
pub(crate) trait Maps {
    /// Adds or replaces a frontend or an address entry.
    fn set_frontend(&mut self, key: &FrontendKey, value: &FrontendValue) -> Result<(), Refusal>;
    /// Removes a frontend or an address entry; one that is not there is as good as removed.
    fn remove_frontend(&mut self, key: &FrontendKey) -> Result<(), Refusal>;
    /// Adds or replaces a name.
    fn set_name(&mut self, id: u32, name: &Name) -> Result<(), Refusal>;
    /// Removes a name; one that is not there is as good as removed.
    fn remove_name(&mut self, id: u32) -> Result<(), Refusal>;
    /// Sets the counters of a service index to zero.
    fn reset_counters(&mut self, index: u32) -> Result<(), Refusal>;

    /// Adds a source range of a service port.
    fn set_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal>;
    /// Removes a source range; one that is not there is as good as removed.
    fn remove_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal>;

    /// Every frontend and address entry.
    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendValue)>>;
    /// Every name.
    fn names(&self) -> io::Result<Vec<(u32, Name)>>;
    /// Every source range, with its service port.
    fn ranges(&self) -> io::Result<Vec<(u32, IpNet)>>;
    /// Entries that fit into FRONTENDS.
    fn frontends_capacity(&self) -> u32;
    /// Whether the maps were made just now: all counters are zero.
    fn are_new(&self) -> bool;

    /// The SERVICES array.
    fn services(&self) -> &Memory<Service>;
    /// The SLOTS array.
    fn slots(&self) -> &Memory<Slot>;
    /// The FILTER array, the address filter.
    fn address_filter(&self) -> &Memory<u64>;
    /// The CONFIG array.
    fn config(&self) -> &Memory<Config>;
}

/// Counts the changes that were made by `bpf()` calls.
pub(crate) struct Counted<M> {
    maps: M,
    writes: usize,
}

impl<M: Maps> Counted<M> {
    /// Nothing counted yet.
    pub(crate) const fn new(maps: M) -> Self {
        Self { maps, writes: 0 }
    }

    /// What is counted.
    pub(crate) const fn maps(&self) -> &M {
        &self.maps
    }

    /// Goes on with other maps.
    pub(crate) fn replace(&mut self, maps: M) {
        self.maps = maps;
    }

    /// Changes since the last call.
    pub(crate) const fn take_writes(&mut self) -> usize {
        std::mem::replace(&mut self.writes, 0)
    }

    fn count(&mut self, result: Result<(), Refusal>) -> Result<(), Refusal> {
        if result.is_ok() {
            self.writes += 1;
        }
        result
    }
}

impl<M: Maps> Maps for Counted<M> {
    fn set_frontend(&mut self, key: &FrontendKey, value: &FrontendValue) -> Result<(), Refusal> {
        let result = self.maps.set_frontend(key, value);
        self.count(result)
    }

    fn remove_frontend(&mut self, key: &FrontendKey) -> Result<(), Refusal> {
        let result = self.maps.remove_frontend(key);
        self.count(result)
    }

    fn set_name(&mut self, id: u32, name: &Name) -> Result<(), Refusal> {
        let result = self.maps.set_name(id, name);
        self.count(result)
    }

    fn remove_name(&mut self, id: u32) -> Result<(), Refusal> {
        let result = self.maps.remove_name(id);
        self.count(result)
    }

    fn reset_counters(&mut self, index: u32) -> Result<(), Refusal> {
        let result = self.maps.reset_counters(index);
        self.count(result)
    }

    fn set_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal> {
        let result = self.maps.set_range(id, net);
        self.count(result)
    }

    fn remove_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal> {
        let result = self.maps.remove_range(id, net);
        self.count(result)
    }

    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendValue)>> {
        self.maps.frontends()
    }

    fn names(&self) -> io::Result<Vec<(u32, Name)>> {
        self.maps.names()
    }

    fn ranges(&self) -> io::Result<Vec<(u32, IpNet)>> {
        self.maps.ranges()
    }

    fn frontends_capacity(&self) -> u32 {
        self.maps.frontends_capacity()
    }

    fn are_new(&self) -> bool {
        self.maps.are_new()
    }

    fn services(&self) -> &Memory<Service> {
        self.maps.services()
    }

    fn slots(&self) -> &Memory<Slot> {
        self.maps.slots()
    }

    fn address_filter(&self) -> &Memory<u64> {
        self.maps.address_filter()
    }

    fn config(&self) -> &Memory<Config> {
        self.maps.config()
    }
}
