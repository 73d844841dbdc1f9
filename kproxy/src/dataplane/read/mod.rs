//! Reads the pinned maps into plain rows: for the debug CLI, with the daemon alive or dead.
//!
//! Everything here only reads. One decoder a layout, shared with the writer ([`super::codec`]).

mod affinity;
mod error;
mod flows;
#[cfg(test)]
mod fuzz;
mod links;
mod rows;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap as Numbers},
    net::IpAddr,
    path::Path,
};

use aya::maps::{HashMap, IterableMap as _, LpmTrie, Map, MapData, PerCpuArray, PerCpuHashMap};
use ipnet::IpNet;
use kproxy_common::{
    abi::map,
    affinity::{AffinityKey, AffinityValue},
    config::Config,
    counters::{DropKey, NO_SERVICE, ServiceCounters},
    drop_reason::DropReason,
    filter,
    flow::{FlowKey, FlowValue},
    load::LoadKey,
    net::{Addr, Port},
    ranges::RangeData,
    service::{
        FrontendKey, FrontendValue, Name, Service, Slot, frontend_flags, service_flags,
        service_port_id,
    },
};

pub use error::{OpenError, ReadError};
pub use rows::*;
pub(crate) use words::name_opt;
pub use words::{kind_name, scope_name, sources_name, verdict_name};

use super::{
    codec,
    memory::View,
    netns::{self, Netns},
    pins::PinDirs,
    sys,
};
use crate::plan::{Algorithm, Protocol, Scope, ServicePortId, SocketVerdicts};

/// The pinned maps of this version, opened for reading.
pub struct Pins {
    dirs: PinDirs,
    frontends: HashMap<MapData, FrontendKey, FrontendValue>,
    names: HashMap<MapData, u32, Name>,
    flows: HashMap<MapData, FlowKey, FlowValue>,
    counters: PerCpuArray<MapData, ServiceCounters>,
    drops: PerCpuHashMap<MapData, DropKey, u64>,
    affinity: HashMap<MapData, AffinityKey, AffinityValue>,
    ranges: LpmTrie<MapData, RangeData, u32>,
    loads: HashMap<MapData, LoadKey, i64>,
    netns: Netns,
    services: View<Service>,
    slots: View<Slot>,
    filter: View<u64>,
    config: View<Config>,
}

impl Pins {
    /// Opens the pins below `bpffs_root` (default of the CLI: `/sys/fs/bpf`).
    ///
    /// # Errors
    /// Says which sentence to show: see [`OpenError`].
    pub fn open(bpffs_root: &Path) -> Result<Self, OpenError> {
        let dirs = PinDirs::new(bpffs_root);
        error::check_folders(bpffs_root, &dirs)?;
        let open = Opener { dirs: &dirs };
        Ok(Self {
            frontends: open.typed(map::FRONTENDS)?,
            names: open.typed(map::NAMES)?,
            flows: open.typed(map::FLOWS)?,
            counters: open.typed(map::COUNTERS)?,
            drops: open.typed(map::DROPS)?,
            affinity: open.typed(map::AFFINITY)?,
            ranges: open.typed(map::RANGES)?,
            loads: open.typed(map::LOAD)?,
            netns: open.typed(map::NETNS)?,
            services: open.view(map::SERVICES)?,
            slots: open.view(map::SLOTS)?,
            filter: open.view(map::FILTER)?,
            config: open.view(map::CONFIG)?,
            dirs,
        })
    }

    /// Where the pins are.
    pub const fn dirs(&self) -> &PinDirs {
        &self.dirs
    }

    /// The settings that the programs read.
    pub fn config(&self) -> Config {
        self.config.get(0).unwrap_or_default()
    }

    /// Names of service ports by number. Names that kproxy never writes are left out.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn names(&self) -> Result<BTreeMap<u32, ServicePortId>, ReadError> {
        let names = sys::read_hash(&self.names).map_err(ReadError::of(map::NAMES))?;
        Ok(names.iter().filter_map(|(id, name)| Some((*id, codec::decode_name(name)?))).collect())
    }

    /// Frontends, sorted by name, kind, address, port.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn frontends(&self) -> Result<Vec<FrontendRow>, ReadError> {
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
    pub fn addresses(&self) -> Result<Vec<AddressRow>, ReadError> {
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
    pub fn node_addresses(&self) -> Result<BTreeSet<IpAddr>, ReadError> {
        Ok(self.addresses()?.iter().filter(|row| row.node).map(|row| row.addr).collect())
    }

    /// Service ports and their sets, sorted by name.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn services(&self) -> Result<Vec<ServiceRow>, ReadError> {
        let names = self.names()?;
        let mut ranges: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
        for (id, net) in self.range_entries()? {
            ranges.entry(id).or_default().push(net);
        }
        let mut rows: Vec<_> = (0..self.services.len() / 2)
            .filter_map(|id| {
                let (cluster, entry) = self.set(id, Scope::Cluster)?;
                Some(ServiceRow {
                    id,
                    service: names.get(&id).cloned(),
                    affinity_seconds: (entry.affinity_seconds != 0)
                        .then_some(entry.affinity_seconds),
                    algorithm: codec::decode_algorithm(entry.flags),
                    source_ranges: sorted(ranges.remove(&id).unwrap_or_default()),
                    cluster,
                    local: self.set(id, Scope::Local).map(|(set, _)| set),
                })
            })
            .collect();
        rows.sort_by(|a, b| (&a.service, a.id).cmp(&(&b.service, b.id)));
        Ok(rows)
    }

    /// Backends of every published set, sorted by name, set, address, port.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn backends(&self) -> Result<Vec<BackendRow>, ReadError> {
        let mut rows = Vec::new();
        let mut open: Numbers<(Addr, Port), u64> = Numbers::new();
        for (key, count) in sys::read_hash(&self.loads).map_err(ReadError::of(map::LOAD))? {
            *open.entry((key.addr, key.port)).or_default() += u64::try_from(count).unwrap_or(0);
        }
        for service in self.services()? {
            let counts = service.algorithm == Algorithm::LeastConnections;
            let sets = [(Scope::Cluster, Some(service.cluster)), (Scope::Local, service.local)];
            for (scope, set) in sets {
                let Some(set) = set else { continue };
                let first = set.first_slot.unwrap_or(0);
                let run = (0..u32::from(set.backends)).map(|i| first.saturating_add(i));
                rows.extend(run.filter_map(|slot| {
                    let entry = self.slots.get(slot)?;
                    let backend = codec::decode_slot(&entry);
                    Some(BackendRow {
                        id: service.id,
                        service: service.service.clone(),
                        set: scope,
                        addr: backend.addr,
                        port: backend.port,
                        local: backend.local,
                        connections: counts
                            .then(|| open.get(&(entry.addr, entry.port)).copied().unwrap_or(0)),
                        slot,
                    })
                }));
            }
        }
        Ok(rows)
    }

    /// Counters of every set in use, summed over CPUs, sorted by name.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn counters(&self) -> Result<Vec<CounterRow>, ReadError> {
        let mut rows = Vec::new();
        for service in self.services()? {
            let local = service.local.map(|set| (Scope::Local, set));
            for (scope, set) in [(Scope::Cluster, service.cluster)].into_iter().chain(local) {
                let per_cpu = self
                    .counters
                    .get(&set.index, 0)
                    .map_err(|error| ReadError::map(map::COUNTERS, error))?;
                let sum = |field: fn(&ServiceCounters) -> u64| per_cpu.iter().map(field).sum();
                rows.push(CounterRow {
                    id: service.id,
                    service: service.service.clone(),
                    set: scope,
                    connections: sum(|counters| counters.connections),
                    packets: sum(|counters| counters.packets),
                    bytes: sum(|counters| counters.bytes),
                });
            }
        }
        Ok(rows)
    }

    /// Refusals and drops by service and reason, summed over CPUs, sorted by name and reason.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn drops(&self) -> Result<Vec<DropRow>, ReadError> {
        let names = self.names()?;
        let mut rows = Vec::new();
        for element in self.drops.iter() {
            let (key, per_cpu) = element.map_err(|error| ReadError::map(map::DROPS, error))?;
            let id = (key.service != NO_SERVICE).then(|| service_port_id(key.service));
            rows.push(DropRow {
                id,
                service: id.and_then(|id| names.get(&id).cloned()),
                set: id.map(|_| codec::scope_of(key.service)),
                reason_number: key.reason,
                reason: DropReason::from_number(key.reason),
                count: per_cpu.iter().sum(),
            });
        }
        rows.sort_by(|a, b| {
            (&a.service, a.id, a.reason_number).cmp(&(&b.service, b.id, b.reason_number))
        });
        Ok(rows)
    }

    /// Which network namespaces the socket path serves and which it leaves alone, by cookie.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn socket_verdicts(&self) -> Result<SocketVerdicts, ReadError> {
        netns::read(&self.netns).map_err(ReadError::of(map::NETNS))
    }

    /// How full each map is. Counted from the maps, exact at the moment of the call.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn usage(&self) -> Result<Vec<UsageRow>, ReadError> {
        let (mut services, mut slots) = (0, 0);
        for index in 0..self.services.len() {
            let Some(entry) = self.services.get(index) else { break };
            if entry.flags & service_flags::IN_USE != 0 {
                services += 1;
                let word = codec::word_of(&entry);
                slots += u64::from(codec::run_len(word, self.slots.get(word.first)));
            }
        }
        let bits = (0..self.filter.len())
            .filter_map(|index| self.filter.get(index))
            .map(|word| u64::from(word.count_ones()))
            .sum();
        let frontends = self.frontend_entries()?.len();
        let names = sys::read_hash(&self.names).map_err(ReadError::of(map::NAMES))?.len();
        let mut flows = 0;
        self.each_flow(|_, _| flows += 1)?;
        let drops = self.drops.keys().count() as u64;
        let clients = self.affinity_entries()?.len() as u64;
        let ranges = self.range_entries()?.len() as u64;
        let namespaces = self.socket_verdicts()?.len() as u64;
        let row = |map, used, capacity| UsageRow { map, used, capacity };
        Ok(vec![
            row(map::FRONTENDS, frontends as u64, capacity(self.frontends.map())),
            row(map::SERVICES, services, self.services.len().into()),
            row(map::SLOTS, slots, self.slots.len().into()),
            row(map::FILTER, bits, filter::BITS.into()),
            row(map::NAMES, names as u64, capacity(self.names.map())),
            row(map::FLOWS, flows, capacity(self.flows.map())),
            row(map::DROPS, drops, capacity(self.drops.map())),
            row(map::AFFINITY, clients, capacity(self.affinity.map())),
            row(map::RANGES, ranges, capacity(self.ranges.map())),
            row(map::NETNS, namespaces, capacity(self.netns.map())),
        ])
    }

    fn frontend_entries(&self) -> Result<Vec<(FrontendKey, FrontendValue)>, ReadError> {
        sys::read_hash(&self.frontends).map_err(ReadError::of(map::FRONTENDS))
    }

    fn range_entries(&self) -> Result<Vec<(u32, IpNet)>, ReadError> {
        sys::read_ranges(&self.ranges).map_err(ReadError::of(map::RANGES))
    }

    /// A set that is in use, with its whole entry.
    fn set(&self, id: u32, scope: Scope) -> Option<(SetRow, Service)> {
        let index = codec::index_of(id, scope);
        let entry = self.services.get(index)?;
        if entry.flags & service_flags::IN_USE == 0 {
            return None;
        }
        let word = codec::word_of(&entry);
        let row = SetRow {
            index,
            backends: word.count,
            first_slot: (word.count > 0).then_some(word.first),
            generation: word.generation,
            empty: (word.count == 0).then(|| codec::decode_verdict(word.first)),
        };
        Some((row, entry))
    }
}

fn sorted(mut nets: Vec<IpNet>) -> Vec<String> {
    nets.sort_unstable();
    nets.iter().map(IpNet::to_string).collect()
}

fn capacity(map: &MapData) -> u64 {
    map.info().map_or(0, |info| info.max_entries().into())
}

/// Opens maps and checks that their layout is the one of this version.
struct Opener<'a> {
    dirs: &'a PinDirs,
}

impl Opener<'_> {
    fn data(&self, name: &str, access: sys::Access) -> Result<MapData, OpenError> {
        let path = self.dirs.map(name);
        let fd = sys::open_pin(&path, access).map_err(|error| OpenError::opening(&path, error))?;
        MapData::from_fd(fd).map_err(|error| OpenError::other(&path, error))
    }

    fn typed<T>(&self, name: &str) -> Result<T, OpenError>
    where
        T: TryFrom<Map, Error = aya::maps::MapError>,
    {
        let path = self.dirs.map(name);
        Map::from_map_data(self.data(name, sys::Access::Read)?)
            .and_then(T::try_from)
            .map_err(|error| OpenError::other(&path, error))
    }

    fn view<T: super::memory::Element>(&self, name: &str) -> Result<View<T>, OpenError> {
        use std::os::fd::AsFd as _;
        let path = self.dirs.map(name);
        // The kernel takes a shared mapping of a file opened for reading only for a private one,
        // which maps do not offer (do_mmap, mm/mmap.c). The mapping itself is for reading only.
        let data = self.data(name, sys::Access::ReadWrite)?;
        let info = data.info().map_err(|error| OpenError::other(&path, error))?;
        let size = size_of::<T>();
        if info.value_size() as usize != size {
            let found = info.value_size();
            let why = format!("its elements have {found} bytes instead of {size}");
            return Err(OpenError::other(&path, why));
        }
        View::of_map(data.fd().as_fd(), info.max_entries())
            .map_err(|error| OpenError::opening(&path, error))
    }
}
