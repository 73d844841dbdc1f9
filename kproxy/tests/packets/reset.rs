//! One set of programs for many tests and cases: loading them is slow, on old kernels most of all.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::thread;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use kproxy_common::abi::map;
use kproxy_common::affinity::{AffinityKey, AffinityValue};
use kproxy_common::config::{Config, Uplink};
use kproxy_common::counters::{DropKey, ServiceCounters};
use kproxy_common::filter;
use kproxy_common::flow::unassured::Unassured;
use kproxy_common::flow::{FlowKey, FlowValue};
use kproxy_common::fragment::First;
use kproxy_common::load::LoadKey;
use kproxy_common::net::proto::UDP;
use kproxy_common::service::{FrontendKey, FrontendValue, Service};
use kproxy_common::trace::Trace;

use super::Programs;

/// Objects that no test has at the moment, by their room for flows.
static FREE: Mutex<Vec<(u32, Ebpf)>> = Mutex::new(Vec::new());

/// An object for one test; the next one goes on with it, unless this one fails.
pub(crate) struct Lent {
    flows: u32,
    ebpf: Option<Ebpf>,
}

impl Lent {
    /// An object of this size that is free, with all that the test before has left in it, or a new one.
    pub(crate) fn with_flows(flows: u32, new: impl FnOnce() -> Ebpf) -> Self {
        let mut free = FREE.lock().unwrap();
        let found = free.iter().position(|(room, _)| *room == flows);
        let found = found.map(|place| free.swap_remove(place).1);
        Self { flows, ebpf: Some(found.unwrap_or_else(new)) }
    }
}

impl Deref for Lent {
    type Target = Ebpf;

    fn deref(&self) -> &Ebpf {
        self.ebpf.as_ref().unwrap()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Ebpf {
        self.ebpf.as_mut().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(ebpf) = self.ebpf.take().filter(|_| !thread::panicking()) {
            FREE.lock().unwrap().push((self.flows, ebpf));
        }
    }
}

/// Service indices below this one are what [`Programs::forget_all`] clears.
const SERVICES_USED: u32 = 16;

impl Programs {
    /// Makes every flow older.
    pub(crate) fn age_flows(&mut self, seconds: u32) {
        for (key, mut value) in self.flows() {
            value.last_seen = value.last_seen.wrapping_sub(seconds);
            if key.proto == UDP {
                value.end = value.end.wrapping_sub(seconds);
            }
            self.hash(map::FLOWS).insert(key, value, 0).unwrap();
        }
    }

    /// Makes every flow that may give way older, by hours.
    pub(crate) fn age_unassured(&mut self) {
        let config: Config = self.array(map::CONFIG).get(&0, 0).unwrap();
        let mut elements = self.array::<Unassured>(map::UNASSURED);
        for place in 0..config.unassured {
            let element = elements.get(&place, 0).unwrap();
            if element.stamp != 0 {
                let stamp = element.stamp.wrapping_sub(1 << 24).max(1);
                elements.set(place, Unassured { stamp, ..element }, 0).unwrap();
            }
        }
    }

    /// Ends every flow.
    pub(crate) fn forget_flows(&mut self) {
        forget(&mut self.hash::<FlowKey, FlowValue>(map::FLOWS));
        let config: Config = self.array(map::CONFIG).get(&0, 0).unwrap();
        for place in 0..config.unassured {
            self.array(map::UNASSURED).set(place, Unassured::default(), 0).unwrap();
        }
        self.array(map::ASSURED).set(0, 0u64, 0).unwrap();
    }

    /// Makes them as good as new for the next test. What is left are bits of filters, which only lead to
    /// lookups in vain, and backends that no service leads to.
    pub(crate) fn forget_test(&mut self, services: u32) {
        self.forget_up_to(services);
        forget(&mut self.hash::<u32, Uplink>(map::UPLINKS));
        forget(&mut self.hash::<FlowKey, First>(map::FRAGMENTS));
        forget(&mut self.hash::<FlowKey, u32>(map::APART));
        self.notes();
        self.listen(Trace::default());
        self.events();
        let none = PerCpuValues::try_from(vec![0u64; nr_cpus().unwrap()]).unwrap();
        let mut untold: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map_mut(map::UNTOLD).unwrap()).unwrap();
        untold.set(0, none, 0).unwrap();
    }

    /// Empties every map but those of the configuration and the uplinks. Of arrays, the elements up
    /// to `SERVICES_USED`.
    pub(crate) fn forget_all(&mut self) {
        self.forget_up_to(SERVICES_USED);
    }

    fn forget_up_to(&mut self, services: u32) {
        let mut frontends = self.hash::<FrontendKey, FrontendValue>(map::FRONTENDS);
        let keys = forget(&mut frontends);
        for key in keys {
            for bit in [filter::bit(&key.addr), filter::bit_of_node_port(key.port, key.proto)] {
                let (word, _) = filter::position(bit);
                self.array::<u64>(map::FILTER).set(word, 0, 0).unwrap();
            }
        }
        self.forget_flows();
        forget(&mut self.hash::<AffinityKey, AffinityValue>(map::AFFINITY));
        forget(&mut self.hash::<LoadKey, i64>(map::LOAD));
        let mut ranges = self.ranges();
        let keys: Vec<_> = ranges.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| ranges.remove(key).unwrap());
        let mut drops: PerCpuHashMap<_, DropKey, u64> =
            PerCpuHashMap::try_from(self.ebpf.map_mut(map::DROPS).unwrap()).unwrap();
        let keys: Vec<_> = drops.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| drops.remove(key).unwrap());
        let cpus = nr_cpus().unwrap();
        let zeros = |n| vec![ServiceCounters::default(); n];
        for index in 0..services {
            self.array(map::SERVICES).set(index, Service::default(), 0).unwrap();
            let mut counters: PerCpuArray<_, ServiceCounters> =
                PerCpuArray::try_from(self.ebpf.map_mut(map::COUNTERS).unwrap()).unwrap();
            let none = PerCpuValues::try_from(zeros(cpus)).unwrap();
            counters.set(index, none, 0).unwrap();
        }
        let mut refusals: PerCpuArray<_, [u32; 2]> =
            PerCpuArray::try_from(self.ebpf.map_mut("KP_LIMITED").unwrap()).unwrap();
        for index in 0..refusals.len() {
            let none = PerCpuValues::try_from(vec![[0; 2]; cpus]).unwrap();
            refusals.set(index, none, 0).unwrap();
        }
        self.pod_flows(true);
    }
}

fn forget<K: aya::Pod, V: aya::Pod>(hash: &mut HashMap<&mut MapData, K, V>) -> Vec<K> {
    let keys: Vec<K> = hash.keys().map(Result::unwrap).collect();
    keys.iter().for_each(|key| hash.remove(key).unwrap());
    keys
}
