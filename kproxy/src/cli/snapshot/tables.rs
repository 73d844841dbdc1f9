//! Frontends, services, backends, counters and addresses.

use std::collections::BTreeMap;

use kproxy_common::counters::NO_SERVICE;
use kproxy_common::drop_reason::DropReason;
use kproxy_common::service::{
    Word, cluster_index, frontend_flags, local_index, service_port_id,
};

use super::{Snapshot, protocol, scope, when_empty};
use crate::cli::rows::address::Address;
use crate::cli::rows::backend::Backend;
use crate::cli::rows::counter::Counter;
use crate::cli::rows::frontend::{Frontend, Target};
use crate::cli::rows::service::{Dialled, Service, Set};
use crate::cli::rows::{Endpoint, Scope};

impl Snapshot {
    /// Frontends, by service port and then by kind and address.
    pub fn frontends(&self) -> Vec<Frontend> {
        let mut rows: Vec<_> = self
            .frontends
            .iter()
            .filter(|(key, _)| !key.is_address())
            .map(|(key, value)| {
                let mut service = self.service_port(service_port_id(value.internal));
                // The key is what counts, also where the name is missing.
                service.protocol = protocol(key.proto);
                Frontend {
                    service,
                    kind: kind(value.flags),
                    endpoint: Endpoint { address: key.addr.into(), port: key.port.get() },
                    internal: self.target(value.internal),
                    external: self.target(value.external),
                }
            })
            .collect();
        rows.sort_by(|a, b| {
            let key = |row: &Frontend| (row.kind.clone(), row.endpoint);
            a.service.cmp(&b.service).then_with(|| key(a).cmp(&key(b)))
        });
        rows
    }

    fn target(&self, index: u32) -> Target {
        let word = self.word(index);
        Target { scope: scope(index), backends: word.count, when_empty: when_empty(word) }
    }

    /// Service ports that have a name or a set, by name.
    pub fn services(&self) -> Vec<Service> {
        let mut frontends: BTreeMap<u32, Vec<Dialled>> = BTreeMap::new();
        for row in self.frontends() {
            let dialled = Dialled { kind: row.kind, endpoint: row.endpoint };
            frontends.entry(row.service.service_port_id).or_default().push(dialled);
        }
        let mut ids: Vec<u32> = self.names.keys().copied().collect();
        ids.extend(self.sets.keys().map(|index| service_port_id(*index)));
        ids.sort_unstable();
        ids.dedup();
        let mut rows: Vec<_> = ids
            .into_iter()
            .map(|id| Service {
                service: self.service_port(id),
                frontends: frontends.remove(&id).unwrap_or_default(),
                cluster: set(cluster_index(id), self.word(cluster_index(id))),
                local: self
                    .sets
                    .get(&local_index(id))
                    .map(|local| set(local_index(id), Word::unpack(local.entry.word))),
                affinity_seconds: self
                    .sets
                    .get(&cluster_index(id))
                    .map(|cluster| cluster.entry.affinity_seconds)
                    .filter(|seconds| *seconds != 0),
            })
            .collect();
        rows.sort_by(|a, b| a.service.cmp(&b.service));
        rows
    }

    /// Backends, each once a service port, by name and address.
    pub fn backends(&self) -> Vec<Backend> {
        let mut rows: BTreeMap<(u32, Endpoint), Backend> = BTreeMap::new();
        for (index, set) in &self.sets {
            let (id, first) = (service_port_id(*index), Word::unpack(set.entry.word).first);
            for (slot, number) in set.slots.iter().zip(first..) {
                let endpoint = Endpoint { address: slot.addr.into(), port: slot.port.get() };
                let row = rows.entry((id, endpoint)).or_insert_with(|| Backend {
                    service: self.service_port(id),
                    endpoint,
                    on_this_node: false,
                    sets: Vec::new(),
                    slots: Vec::new(),
                });
                row.on_this_node |= slot.flags & kproxy_common::service::slot_flags::LOCAL != 0;
                row.sets.push(scope(*index));
                row.slots.push(number);
            }
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by(|a, b| (&a.service, a.endpoint).cmp(&(&b.service, b.endpoint)));
        rows
    }

    /// Counters of every service port, by name; last what belongs to none.
    pub fn counters(&self) -> Vec<Counter> {
        let blank = |id| Counter {
            service_port: (id != NO_SERVICE).then(|| self.service_port(id)),
            connections: 0,
            packets: 0,
            bytes: 0,
            drops: BTreeMap::new(),
        };
        let mut rows: BTreeMap<u32, Counter> =
            self.names.keys().map(|id| (*id, blank(*id))).collect();
        for (index, counted) in &self.counters {
            let id = service_port_id(*index);
            let row = rows.entry(id).or_insert_with(|| blank(id));
            row.connections = row.connections.saturating_add(counted.connections);
            row.packets = row.packets.saturating_add(counted.packets);
            row.bytes = row.bytes.saturating_add(counted.bytes);
        }
        for (key, count) in &self.drops {
            let id = match key.service {
                NO_SERVICE => NO_SERVICE,
                index => service_port_id(index),
            };
            let row = rows.entry(id).or_insert_with(|| blank(id));
            *row.drops.entry(reason(key.reason)).or_default() += count;
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by(|a, b| {
            let none_last = |row: &Counter| row.service_port.is_none();
            none_last(a).cmp(&none_last(b)).then_with(|| a.service_port.cmp(&b.service_port))
        });
        rows
    }

    /// Address entries: this node's first, each part by address.
    pub fn addresses(&self) -> Vec<Address> {
        let mut rows: Vec<_> = self
            .frontends
            .iter()
            .filter(|(key, _)| key.is_address())
            .map(|(key, value)| Address {
                address: key.addr.into(),
                of_this_node: value.flags & frontend_flags::NODE_ADDRESS != 0,
                cluster_ip: value.flags & frontend_flags::SERVICE_ADDRESS != 0,
            })
            .collect();
        rows.sort_by_key(|row| (!row.of_this_node, row.address));
        rows
    }

    /// Drops by reason, over all services, in the order of the reasons' numbers.
    pub fn drops_by_reason(&self) -> Vec<(u32, u64)> {
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, count) in &self.drops {
            *sums.entry(key.reason).or_default() += count;
        }
        sums.into_iter().filter(|(_, count)| *count != 0).collect()
    }
}

fn set(service_index: u32, word: Word) -> Set {
    Set {
        service_index,
        backends: word.count,
        when_empty: when_empty(word),
        first_slot: (word.count != 0).then_some(word.first),
        generation: word.generation,
    }
}

/// Words of the kinds in `flags`.
fn kind(flags: u32) -> String {
    let known = [
        (frontend_flags::CLUSTER_IP, "ClusterIP"),
        (frontend_flags::NODE_PORT, "NodePort"),
        (frontend_flags::EXTERNAL_IP, "ExternalIP"),
        (frontend_flags::LOAD_BALANCER, "LoadBalancer"),
    ];
    let words: Vec<_> =
        known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
    if words.is_empty() { "?".to_owned() } else { words.join("+") }
}

/// Word of a drop reason; the number for one of a later version.
pub(crate) fn reason(number: u32) -> String {
    DropReason::from_number(number)
        .map_or_else(|| format!("reason-{number}"), |reason| reason.name().to_owned())
}

impl Scope {
    /// Index of this set of service port `id`.
    #[cfg(test)]
    pub(crate) const fn index(self, id: u32) -> u32 {
        match self {
            Self::Cluster => cluster_index(id),
            Self::Local => local_index(id),
        }
    }
}
