//! Maps in memory, for tests: with a capacity, a count of calls, and a crash on demand.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    rc::Rc,
    sync::Arc,
};

use ipnet::IpNet;
use kproxy_common::{
    config::Config,
    filter,
    net::Addr,
    service::{FrontendKey, FrontendValue, Name, Service, Slot, service_flags, service_port_id},
};

use super::maps::{Maps, Refusal};
use crate::{
    dataplane::{codec, kernel::memory::Memory},
    plan::{Algorithm, Backend, EmptyVerdict, Scope, ServicePortId},
};

/// Source ranges that fit.
const MAX_RANGES: usize = 16;

/// The array maps, which threads may share.
pub(super) struct Arrays {
    pub(super) services: Memory<Service>,
    pub(super) slots: Memory<Slot>,
    address_filter: Memory<u64>,
    config: Memory<Config>,
}

#[derive(Default)]
struct Hashes {
    frontends: HashMap<FrontendKey, FrontendValue>,
    names: HashMap<u32, Name>,
    ranges: BTreeSet<(u32, IpNet)>,
    dirty_counters: BTreeSet<u32>,
    calls: usize,
    /// Calls until the process "crashes".
    crash_in: Option<usize>,
}

/// Maps that outlive the writer: a clone is the same maps opened again.
#[derive(Clone)]
pub(super) struct FakeMaps {
    pub(super) arrays: Arc<Arrays>,
    hashes: Rc<RefCell<Hashes>>,
    max_frontends: u32,
    are_new: bool,
}

/// What the maps mean, whatever ids, slots and generations were chosen.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Meaning {
    pub(super) ports: BTreeMap<ServicePortId, [Option<MeantSet>; 2]>,
    pub(super) frontends: BTreeMap<FrontendKey, (ServicePortId, Scope, Scope, u32)>,
    pub(super) addresses: BTreeMap<Addr, u32>,
    pub(super) filter: BTreeSet<u32>,
    pub(super) ranges: BTreeSet<(ServicePortId, IpNet)>,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) struct MeantSet {
    pub(super) backends: Vec<Backend>,
    pub(super) empty: Option<EmptyVerdict>,
    pub(super) affinity: u32,
    pub(super) algorithm: Algorithm,
}

impl FakeMaps {
    pub(super) fn new(services: u32, slots: u32, max_frontends: u32) -> Self {
        let arrays = Arrays {
            services: Memory::anonymous(services).unwrap(),
            slots: Memory::anonymous(slots).unwrap(),
            address_filter: Memory::anonymous(filter::WORDS).unwrap(),
            config: Memory::anonymous(1).unwrap(),
        };
        let hashes = Rc::default();
        Self { arrays: Arc::new(arrays), hashes, max_frontends, are_new: true }
    }

    /// Larger maps that hold the same.
    pub(super) fn larger(&self, services: u32, slots: u32, max_frontends: u32) -> Self {
        let larger = Self::new(services, slots, max_frontends);
        larger.arrays.services.copy_from(&self.arrays.services);
        larger.arrays.slots.copy_from(&self.arrays.slots);
        larger.arrays.address_filter.copy_from(&self.arrays.address_filter);
        larger.arrays.config.copy_from(&self.arrays.config);
        Self { hashes: Rc::clone(&self.hashes), are_new: false, ..larger }
    }

    /// The same maps as a later process finds them.
    pub(super) fn reopened(&self) -> Self {
        self.hashes.borrow_mut().crash_in = None;
        Self { are_new: false, ..self.clone() }
    }

    pub(super) fn crash_in(&self, calls: Option<usize>) {
        self.hashes.borrow_mut().crash_in = calls;
    }

    pub(super) fn calls(&self) -> usize {
        self.hashes.borrow().calls
    }

    pub(super) fn mark_counters(&self) {
        let all = 0..self.arrays.services.len();
        self.hashes.borrow_mut().dirty_counters.extend(all);
    }

    pub(super) fn id_of(&self, id: &ServicePortId) -> Option<u32> {
        let hashes = self.hashes.borrow();
        let found =
            hashes.names.iter().find(|(_, name)| codec::decode_name(name).as_ref() == Some(id));
        found.map(|(id, _)| *id)
    }

    pub(super) fn counters_are_dirty(&self, id: u32) -> bool {
        self.hashes.borrow().dirty_counters.range(id * 2..id * 2 + 2).next().is_some()
    }

    /// Reads everything back; panics on any contradiction.
    pub(super) fn meaning(&self) -> Meaning {
        let hashes = self.hashes.borrow();
        let mut meaning = Meaning::default();
        let mut slots = BTreeSet::new();
        let names: HashMap<u32, ServicePortId> = hashes
            .names
            .iter()
            .map(|(id, name)| (*id, codec::decode_name(name).expect("a name")))
            .collect();
        for (id, name) in &names {
            let sets = [Scope::Cluster, Scope::Local].map(|scope| {
                let entry = self.arrays.services.get(codec::index_of(*id, scope)).unwrap();
                let set = self.meant_set(&entry)?;
                let word = codec::word_of(&entry);
                if word.count > 0 {
                    let len = codec::run_len(word, self.arrays.slots.get(word.first));
                    for slot in word.first..word.first + len {
                        assert!(slots.insert(slot), "slot {slot} is used twice");
                    }
                }
                Some(set)
            });
            assert!(sets[0].is_some(), "{name} has a name and no set");
            assert!(meaning.ports.insert(name.clone(), sets).is_none(), "{name} is there twice");
        }
        for index in 0..self.arrays.services.len() {
            let entry = self.arrays.services.get(index).unwrap();
            let owned = names.contains_key(&service_port_id(index));
            assert!(entry.flags == 0 || owned, "set {index} has no name");
        }
        for (key, value) in &hashes.frontends {
            if key.is_address() {
                meaning.addresses.insert(key.addr, value.flags);
                continue;
            }
            let id = service_port_id(value.internal);
            assert_eq!(id, service_port_id(value.external));
            let name = names.get(&id).expect("a frontend leads to a service port").clone();
            let scopes = [value.internal, value.external].map(codec::scope_of);
            for scope in scopes {
                let set = &meaning.ports[&name][scope as usize];
                assert!(set.is_some(), "{key:?} leads to a set that is not there");
            }
            meaning.frontends.insert(*key, (name, scopes[0], scopes[1], value.flags));
        }
        for (id, net) in &hashes.ranges {
            let name = names.get(id).expect("a range belongs to a service port").clone();
            meaning.ranges.insert((name, *net));
        }
        for index in 0..self.arrays.address_filter.len() {
            let word = self.arrays.address_filter.get(index).unwrap();
            meaning
                .filter
                .extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| index * 64 + bit));
        }
        meaning
    }

    fn meant_set(&self, entry: &Service) -> Option<MeantSet> {
        if entry.flags & service_flags::IN_USE == 0 {
            return None;
        }
        let word = codec::word_of(entry);
        let slots =
            (0..u32::from(word.count)).map(|i| self.arrays.slots.get(word.first + i).unwrap());
        Some(MeantSet {
            backends: slots.map(|slot| codec::decode_slot(&slot)).collect(),
            empty: (word.count == 0).then(|| codec::decode_verdict(word.first)),
            affinity: entry.affinity_seconds,
            algorithm: codec::decode_algorithm(entry.flags),
        })
    }

    fn call(&self) {
        let mut hashes = self.hashes.borrow_mut();
        hashes.calls += 1;
        if let Some(left) = &mut hashes.crash_in {
            if *left == 0 {
                drop(hashes);
                // Unlike a panic this prints nothing.
                std::panic::resume_unwind(Box::new(Crash));
            }
            *left -= 1;
        }
    }
}

/// Payload of the panic that stands for a crash of the process.
pub(super) struct Crash;

impl Maps for FakeMaps {
    fn set_frontend(&mut self, key: &FrontendKey, value: &FrontendValue) -> Result<(), Refusal> {
        self.call();
        let frontends = &mut self.hashes.borrow_mut().frontends;
        if frontends.len() >= self.max_frontends as usize && !frontends.contains_key(key) {
            return Err(Refusal::Full);
        }
        frontends.insert(*key, *value);
        Ok(())
    }

    fn remove_frontend(&mut self, key: &FrontendKey) -> Result<(), Refusal> {
        self.call();
        self.hashes.borrow_mut().frontends.remove(key);
        Ok(())
    }

    fn set_name(&mut self, id: u32, name: &Name) -> Result<(), Refusal> {
        self.call();
        self.hashes.borrow_mut().names.insert(id, *name);
        Ok(())
    }

    fn remove_name(&mut self, id: u32) -> Result<(), Refusal> {
        self.call();
        self.hashes.borrow_mut().names.remove(&id);
        Ok(())
    }

    fn reset_counters(&mut self, index: u32) -> Result<(), Refusal> {
        self.call();
        self.hashes.borrow_mut().dirty_counters.remove(&index);
        Ok(())
    }

    fn set_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal> {
        self.call();
        let ranges = &mut self.hashes.borrow_mut().ranges;
        if ranges.len() >= MAX_RANGES && !ranges.contains(&(id, *net)) {
            return Err(Refusal::Full);
        }
        ranges.insert((id, *net));
        Ok(())
    }

    fn remove_range(&mut self, id: u32, net: &IpNet) -> Result<(), Refusal> {
        self.call();
        self.hashes.borrow_mut().ranges.remove(&(id, *net));
        Ok(())
    }

    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendValue)>> {
        Ok(self.hashes.borrow().frontends.iter().map(|(key, value)| (*key, *value)).collect())
    }

    fn names(&self) -> io::Result<Vec<(u32, Name)>> {
        Ok(self.hashes.borrow().names.iter().map(|(id, name)| (*id, *name)).collect())
    }

    fn ranges(&self) -> io::Result<Vec<(u32, IpNet)>> {
        Ok(self.hashes.borrow().ranges.iter().copied().collect())
    }

    fn frontends_capacity(&self) -> u32 {
        self.max_frontends
    }

    fn are_new(&self) -> bool {
        self.are_new
    }

    fn services(&self) -> &Memory<Service> {
        &self.arrays.services
    }

    fn slots(&self) -> &Memory<Slot> {
        &self.arrays.slots
    }

    fn address_filter(&self) -> &Memory<u64> {
        &self.arrays.address_filter
    }

    fn config(&self) -> &Memory<Config> {
        &self.arrays.config
    }
}
