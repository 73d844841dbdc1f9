//! The kernel's maps, through aya for hashes and through shared memory for arrays.

use std::io;

use aya::{
    maps::{IterableMap as _, MapError, PerCpuValues, lpm_trie::Key},
    util::nr_cpus,
};
use ipnet::IpNet;
use kproxy_common::{
    abi::map,
    config::Config,
    counters::{DropKey, ServiceCounters},
    drop_reason::DropReason,
    service::{FrontendKey, FrontendValue, Name, Service, Slot},
};

use super::maps::{Maps, Refusal};
use crate::dataplane::{
    codec,
    error::Error,
    kernel::{hash, memory::Memory},
    maps::{Counters, Drops, Frontends, Names, Ranges, ServiceMaps, memory, read_ranges},
};

/// The kernel's maps, opened for writing.
pub(crate) struct KernelMaps {
    frontends: Frontends,
    names: Names,
    counters: Counters,
    drops: Drops,
    ranges: Ranges,
    services: Memory<Service>,
    slots: Memory<Slot>,
    address_filter: Memory<u64>,
    config: Memory<Config>,
    frontends_capacity: u32,
    are_new: bool,
}

impl KernelMaps {
    /// Maps the arrays into memory.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) fn new(maps: ServiceMaps) -> Result<Self, Error> {
        let frontends = maps.frontends.map().info();
        let frontends = frontends.map_err(Error::of_map("look at", map::FRONTENDS))?;
        Ok(Self {
            services: memory(map::SERVICES, &maps.services)?,
            slots: memory(map::SLOTS, &maps.slots)?,
            address_filter: memory(map::FILTER, &maps.address_filter)?,
            config: memory(map::CONFIG, &maps.config)?,
            frontends: maps.frontends,
            names: maps.names,
            counters: maps.counters,
            drops: maps.drops,
            ranges: maps.ranges,
            frontends_capacity: frontends.max_entries(),
            are_new: maps.are_new,
        })
    }
}

impl KernelMaps {
    /// Copies what other maps hold into these, which are new or the same. Those that do not grow are the
    /// same.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub(crate) fn copy_from(&mut self, other: &Self) -> Result<(), Error> {
        const COPY: &str = "copy";
        if self.frontends_capacity != other.frontends_capacity {
            for (key, value) in other.frontends().map_err(Error::of_map(COPY, map::FRONTENDS))? {
                let copied = self.frontends.insert(key, value, 0);
                copied.map_err(Error::of_map(COPY, map::FRONTENDS))?;
            }
        }
        if self.slots.len() != other.slots.len() {
            self.slots.copy_from(&other.slots);
        }
        if self.services.len() != other.services.len() {
            for (id, name) in other.names().map_err(Error::of_map(COPY, map::NAMES))? {
                self.names.insert(id, name, 0).map_err(Error::of_map(COPY, map::NAMES))?;
            }
            for index in 0..other.services.len() {
                let counters = other.counters.get(&index, 0);
                let counters = counters.map_err(Error::of_map(COPY, map::COUNTERS))?;
                if counters.iter().any(|counters| *counters != ServiceCounters::default()) {
                    let copied = self.counters.set(index, counters, 0);
                    copied.map_err(Error::of_map(COPY, map::COUNTERS))?;
                }
            }
            self.services.copy_from(&other.services);
        }
        Ok(())
    }
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
        hash::read(&self.frontends)
    }

    fn names(&self) -> io::Result<Vec<(u32, Name)>> {
        hash::read(&self.names)
    }

    fn ranges(&self) -> io::Result<Vec<(u32, IpNet)>> {
        read_ranges(&self.ranges)
    }

    fn frontends_capacity(&self) -> u32 {
        self.frontends_capacity
    }

    fn are_new(&self) -> bool {
        self.are_new
    }

    fn services(&self) -> &Memory<Service> {
        &self.services
    }

    fn slots(&self) -> &Memory<Slot> {
        &self.slots
    }

    fn address_filter(&self) -> &Memory<u64> {
        &self.address_filter
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
