//! What the maps hold, in their own layouts.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use kproxy_common::{
    affinity::{AffinityKey, AffinityValue},
    config::{Config, Uplink},
    service::{FrontendKey, FrontendValue, MAX_EXTRA, Service, Slot, Word, service_flags},
};

use super::facts::Set;
use crate::{dataplane::codec, plan::ServicePortId};

/// What the maps hold, as far as questions need it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Frontends and address entries.
    pub frontends: HashMap<FrontendKey, FrontendValue>,
    /// Backend sets in use, by service index.
    pub runs: HashMap<u32, Run>,
    /// Source ranges with the number of their service port.
    pub ranges: Vec<(u32, IpNet)>,
    /// What clients were given last.
    pub affinity: HashMap<AffinityKey, AffinityValue>,
    /// Names of service ports.
    pub names: BTreeMap<u32, ServicePortId>,
    /// Source addresses by device index.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// What becomes of sockets, by cookie of their network namespace: `kproxy_common::netns`.
    pub netns: HashMap<u64, u32>,
    /// Settings of the programs.
    pub config: Config,
    /// Hooks for sockets are attached.
    pub has_sockets: bool,
    /// Pod-facing ports have a program.
    pub has_pod_links: bool,
    /// The kernel lets a hook refuse a call.
    pub refuses_calls: bool,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
}

/// A published backend set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The entry.
    pub service: Service,
    /// Its backends, then the endpoints that only keep what they have.
    pub slots: Vec<Slot>,
}

impl Run {
    /// The set of this entry, if it is in use. `slot` reads a slot.
    pub fn of(service: Service, slot: impl Fn(u32) -> Option<Slot>) -> Option<Self> {
        if service.flags & service_flags::IN_USE == 0 {
            return None;
        }
        let Word { first, count, .. } = codec::word_of(&service);
        let extra = if count == 0 { 0 } else { slot(first).map_or(0, |slot| slot.extra) };
        let length = u32::from(count) + extra.min(MAX_EXTRA);
        let slots = (0..length).map_while(|i| slot(first.checked_add(i)?)).collect();
        Some(Self { service, slots })
    }

    pub(super) const fn word(&self) -> Word {
        codec::word_of(&self.service)
    }

    /// What new connections get.
    pub(super) fn backends(&self) -> &[Slot] {
        &self.slots[..self.slots.len().min(usize::from(self.word().count))]
    }

    /// What only keeps what it has.
    pub(super) fn extra(&self) -> &[Slot] {
        &self.slots[self.backends().len()..]
    }
}

impl View {
    pub(super) fn run(&self, index: u32) -> Option<&Run> {
        self.runs.get(&index)
    }

    pub(super) fn set(&self, index: u32) -> Option<Set> {
        let run = self.run(index)?;
        Some(Set {
            scope: codec::scope_of(index),
            index,
            algorithm: codec::decode_algorithm(run.service.flags),
            backends: run.word().count,
            generation: run.word().generation,
        })
    }

    /// The ranges of a service port, sorted.
    pub(crate) fn ranges_of(&self, id: u32) -> Vec<IpNet> {
        let mut ranges: Vec<IpNet> =
            self.ranges.iter().filter(|(of, _)| *of == id).map(|(_, net)| *net).collect();
        ranges.sort_unstable();
        ranges
    }
}
