//! On start: what the pinned maps hold becomes the writer's state. Nothing is written here;
//! contradictions (a crash in the middle of a change) are noted and repaired by
//! [`Writer::reconcile`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use kproxy_common::{
    abi::map,
    service::{FrontendKey, FrontendValue, Name, service_flags, service_port_id},
};

use super::{
    addresses::Addresses,
    allocator::{Allocator, Run},
    maps::{Counted, Maps},
    missing::Missing,
    problems,
    state::{ServicePort, Shortage, Writer},
};
use crate::{
    dataplane::{codec, error::Error, report::Report, settings::Sizes},
    model::Problem,
    plan::{Protocol, Scope},
};

/// What is read by system calls.
struct Found {
    names: Vec<(u32, Name)>,
    frontends: Vec<(FrontendKey, FrontendValue)>,
    ranges: Vec<(u32, IpNet)>,
}

impl Found {
    fn read(maps: &impl Maps) -> Result<Self, Error> {
        const READ: &str = "read";
        Ok(Self {
            names: maps.names().map_err(Error::of_map(READ, map::NAMES))?,
            frontends: maps.frontends().map_err(Error::of_map(READ, map::FRONTENDS))?,
            ranges: maps.ranges().map_err(Error::of_map(READ, map::RANGES))?,
        })
    }
}

impl<M: Maps> Writer<M> {
    /// Reads the maps.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn open(maps: M) -> Result<Self, Error> {
        let ids = maps.services().len() / 2;
        let untouched_from = if maps.are_new() { 0 } else { ids };
        let found = Found::read(&maps)?;
        let most = Sizes {
            services: maps.services().len(),
            slots: maps.slots().len(),
            frontends: maps.frontends_capacity(),
        };
        let mut writer = Self {
            slots: Allocator::new(maps.slots().len()),
            ids: Allocator::new(ids),
            maps: Counted::new(maps),
            service_ports: BTreeMap::new(),
            by_id: HashMap::new(),
            frontends: HashMap::new(),
            addresses: Addresses::default(),
            pending: BTreeMap::new(),
            has_room: false,
            shortage: Shortage::default(),
            missing: Missing::default(),
            most,
            stray_frontends: HashSet::new(),
            stray_ids: BTreeSet::new(),
            stray_ranges: Vec::new(),
            untouched_from,
            counts_connections: false,
            serves_sctp: false,
        };
        writer.take_in(found);
        Ok(writer)
    }

    /// Reads the maps again, which somebody else may have changed: what this knew of them counts no more. What was
    /// given back goes on resting.
    ///
    /// # Errors
    /// A map could not be read; nothing has changed then.
    pub(crate) fn reread(&mut self) -> Result<(), Error> {
        let found = Found::read(&self.maps)?;
        for of in [&mut self.slots, &mut self.ids] {
            *of = of.with_what_rests();
        }
        self.service_ports.clear();
        self.by_id.clear();
        self.frontends.clear();
        self.addresses = Addresses::default();
        self.pending.clear();
        self.stray_frontends.clear();
        self.stray_ids.clear();
        self.stray_ranges.clear();
        // Whatever was damaged, no id is given out again with the counters of before.
        self.untouched_from = self.ids.capacity();
        self.take_in(found);
        Ok(())
    }

    fn take_in(&mut self, Found { names, frontends, ranges }: Found) {
        self.find_service_ports(names);
        self.find_stray_sets();
        self.frontends.reserve(frontends.len());
        for (key, value) in frontends {
            if key.is_address() {
                self.addresses.found_entry(key.addr, value.flags);
                continue;
            }
            let id = service_port_id(value.internal);
            let owner = self.by_id.get(&id).and_then(|name| self.service_ports.get_mut(name));
            match owner {
                Some(port) if service_port_id(value.external) == id => port.frontends.push(key),
                _ => drop(self.stray_frontends.insert(key)),
            }
            self.frontends.insert(key, value);
            self.addresses.add(&key, value.flags);
        }
        self.addresses.count_found();
        for (id, net) in ranges {
            let owner = self.by_id.get(&id).and_then(|name| self.service_ports.get_mut(name));
            match owner {
                Some(port) => drop(port.ranges.insert(net)),
                None => self.stray_ranges.push((id, net)),
            }
        }
    }

    /// A service port is there when its name and its cluster-wide set are.
    fn find_service_ports(&mut self, mut names: Vec<(u32, Name)>) {
        names.sort_by_key(|(id, _)| *id);
        for (id, name) in names {
            let name = codec::decode_name(&name);
            let published = self.is_in_use(id, Scope::Cluster);
            let (Some(name), true) = (name, published) else {
                self.stray_ids.insert(id);
                continue;
            };
            if self.service_ports.contains_key(&name) || !self.ids.claim(Run { first: id, len: 1 })
            {
                self.stray_ids.insert(id);
                continue;
            }
            self.counts_connections |= self.picks_least(id);
            self.serves_sctp |= name.protocol == Protocol::Sctp;
            let runs = [Scope::Cluster, Scope::Local].map(|scope| self.find_run(id, scope));
            self.by_id.insert(id, name.clone());
            self.service_ports.insert(name, ServicePort { id, runs, ..ServicePort::default() });
        }
    }

    /// The run that a set's word leads to; `None` for an empty set and for a word that cannot be
    /// right (outside the map, or in the run of another set).
    fn find_run(&mut self, id: u32, scope: Scope) -> Option<Run> {
        if !self.is_in_use(id, scope) {
            return None;
        }
        let word = codec::word_of(&self.maps.services().get(codec::index_of(id, scope))?);
        let len = codec::run_len(word, self.maps.slots().get(word.first));
        let run = Run { first: word.first, len };
        self.slots.claim(run).then_some(run)
    }

    fn find_stray_sets(&mut self) {
        for id in 0..self.maps.services().len() / 2 {
            let in_use = [Scope::Cluster, Scope::Local].map(|scope| self.is_in_use(id, scope));
            if in_use.contains(&true) && !self.by_id.contains_key(&id) {
                self.stray_ids.insert(id);
            }
        }
    }

    fn is_in_use(&self, id: u32, scope: Scope) -> bool {
        let index = u64::from(id) * 2 + scope as u64;
        let entry = u32::try_from(index).ok().and_then(|index| self.maps.services().get(index));
        entry.is_some_and(|entry| entry.flags & service_flags::IN_USE != 0)
    }

    fn picks_least(&self, id: u32) -> bool {
        let entry = self.maps.services().get(codec::index_of(id, Scope::Cluster));
        entry.is_some_and(|entry| entry.flags & service_flags::LEAST_CONNECTIONS != 0)
    }

    /// Removes names and sets that no service port owns.
    pub(super) fn clear_strays(&mut self, report: &mut Report) {
        for id in std::mem::take(&mut self.stray_ids) {
            if self.by_id.contains_key(&id) {
                continue;
            }
            if id < self.ids.capacity() {
                for scope in [Scope::Cluster, Scope::Local] {
                    self.clear_set(id, scope);
                }
            }
            if let Err(refusal) = self.maps.remove_name(id) {
                let (why, remedy) = problems::explain(&refusal, map::NAMES);
                let what = format!("{why}; a name without a Service stays in the map");
                report.problems.push(Problem::new(format!("service port {id}"), what, remedy));
                self.stray_ids.insert(id);
            }
        }
    }
}
