//! The kernel's maps, through aya for hashes and through shared memory for arrays.

use std::{io, os::fd::AsFd as _};

use aya::{
    maps::{
        HashMap, IterableMap as _, LpmTrie, MapData, MapError, PerCpuArray, PerCpuHashMap,
        PerCpuValues, lpm_trie::Key,
    },
    util::nr_cpus,
};
use ipnet::IpNet;
use kproxy_common::{
    config::Config,
    counters::{DropKey, ServiceCounters},
    drop_reason::DropReason,
    ranges::RangeData,
    service::{FrontendKey, FrontendValue, Name, Service, Slot},
};

use super::maps::{Maps, Refusal};
use crate::dataplane::{
    codec,
    memory::{Element, Memory},
    sys,
};

/// The kernel's maps, opened for writing.
pub(crate) struct KernelMaps {
    frontends: HashMap<MapData, FrontendKey, FrontendValue>,
    names: HashMap<MapData, u32, Name>,
    counters: PerCpuArray<MapData, ServiceCounters>,
    drops: PerCpuHashMap<MapData, DropKey, u64>,
    ranges: LpmTrie<MapData, RangeData, u32>,
    services: Memory<Service>,
    slots: Memory<Slot>,
    filter: Memory<u64>,
    config: Memory<Config>,
    frontends_capacity: u32,
    is_new: bool,
}

/// The maps that [`KernelMaps`] is made of.
pub(crate) struct Parts {
    pub(crate) frontends: HashMap<MapData, FrontendKey, FrontendValue>,
    pub(crate) names: HashMap<MapData, u32, Name>,
    pub(crate) counters: PerCpuArray<MapData, ServiceCounters>,
    pub(crate) drops: PerCpuHashMap<MapData, DropKey, u64>,
    pub(crate) ranges: LpmTrie<MapData, RangeData, u32>,
    pub(crate) services: MapData,
    pub(crate) slots: MapData,
    pub(crate) filter: MapData,
    pub(crate) config: MapData,
    /// The maps were made just now.
    pub(crate) is_new: bool,
}

impl KernelMaps {
    /// Maps the arrays into memory.
    ///
    /// # Errors
    /// The kernel refused, with the call's error.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let frontends_capacity =
            parts.frontends.map().info().map_err(io::Error::other)?.max_entries();
        Ok(Self {
            services: memory(&parts.services)?,
            slots: memory(&parts.slots)?,
            filter: memory(&parts.filter)?,
            config: memory(&parts.config)?,
            frontends: parts.frontends,
            names: parts.names,
            counters: parts.counters,
            drops: parts.drops,
            ranges: parts.ranges,
            frontends_capacity,
            is_new: parts.is_new,
        })
    }
}

fn memory<T: Element>(map: &MapData) -> io::Result<Memory<T>> {
    let info = map.info().map_err(io::Error::other)?;
    Memory::of_map(map.fd().as_fd(), info.max_entries())
}

impl Maps for KernelMaps {
    fn set_frontend(&mut self, key: &FrontendKey, value: &FrontendValue) -> Result<(), Refusal> {
        self.frontends.insert(key, value, 0).map_err(refusal)
    }

    fn remove_frontend(&mut self, key: &FrontendKey) -> Result<(), Refusal> {
        removed(self.frontends.remove(key))
    }

    fn set_name(&mut self, id: u32, name: &Name) -> Result<(), Refusal> {
        self.names.insert(id, name, 0).map_err(refusal)
    }

    fn remove_name(&mut self, id: u32) -> Result<(), Refusal> {
        removed(self.names.remove(&id))
    }

    fn reset_counters(&mut self, index: u32) -> Result<(), Refusal> {
        let cpus =
            nr_cpus().map_err(|(file, error)| Refusal::Failed(format!("{file}: {error}")))?;
        let zeros = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus])
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        self.counters.set(index, zeros, 0).map_err(refusal)?;
        for reason in DropReason::ALL {
            removed(self.drops.remove(&DropKey { service: index, reason: reason as u32 }))?;
        }
        Ok(())
    }

    fn set_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal> {
        let (prefix_len, data) = codec::encode_range(id, net);
        self.ranges.insert(&Key::new(prefix_len, data), 0, 0).map_err(refusal)
    }

    fn remove_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal> {
        let (prefix_len, data) = codec::encode_range(id, net);
        removed(self.ranges.remove(&Key::new(prefix_len, data)))
    }

    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendValue)>> {
        sys::read_hash(&self.frontends)
    }

    fn names(&self) -> io::Result<Vec<(u32, Name)>> {
        sys::read_hash(&self.names)
    }

    fn ranges(&self) -> io::Result<Vec<(u32, IpNet)>> {
        sys::read_ranges(&self.ranges)
    }

    fn frontends_capacity(&self) -> u32 {
        self.frontends_capacity
    }

    fn is_new(&self) -> bool {
        self.is_new
    }

    fn services(&self) -> &Memory<Service> {
        &self.services
    }

    fn slots(&self) -> &Memory<Slot> {
        &self.slots
    }

    fn filter(&self) -> &Memory<u64> {
        &self.filter
    }

    fn config(&self) -> &Memory<Config> {
        &self.config
    }
}

/// An element that is not there is as good as removed.
fn removed(result: Result<(), MapError>) -> Result<(), Refusal> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(error) => Err(refusal(error)),
    }
}

fn refusal(error: MapError) -> Refusal {
    match error {
        MapError::SyscallError(call) => match call.io_error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Refusal::Full,
            _ => Refusal::Failed(call.io_error.to_string()),
        },
        other => Refusal::Failed(other.to_string()),
    }
}
