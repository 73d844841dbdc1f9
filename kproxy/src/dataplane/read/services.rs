//! Service ports with their names, sets, source ranges and backends.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use kproxy_common::{
    abi::map,
    net::{Addr, Port},
    service::{Service, service_flags},
};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{BackendRow, ServiceRow, SetRow},
};
use crate::{
    dataplane::{codec, kernel::hash, maps::read_ranges},
    plan::{Algorithm, Scope, ServicePortId},
};

impl Pins {
    /// Names of service ports by number. Names that kproxy never writes are left out.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn names(&self) -> Result<BTreeMap<u32, ServicePortId>, ReadError> {
        let names = hash::read(&self.names).map_err(ReadError::of_map(map::NAMES))?;
        Ok(names.iter().filter_map(|(id, name)| Some((*id, codec::decode_name(name)?))).collect())
    }

    /// Service ports and their sets, sorted by name.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn services(&self) -> Result<Vec<ServiceRow>, ReadError> {
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
    pub(crate) fn backends(&self) -> Result<Vec<BackendRow>, ReadError> {
        let mut rows = Vec::new();
        let mut open: HashMap<(Addr, Port), u64> = HashMap::new();
        for (key, count) in hash::read(&self.loads).map_err(ReadError::of_map(map::LOAD))? {
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

    pub(super) fn range_entries(&self) -> Result<Vec<(u32, IpNet)>, ReadError> {
        read_ranges(&self.ranges).map_err(ReadError::of_map(map::RANGES))
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
