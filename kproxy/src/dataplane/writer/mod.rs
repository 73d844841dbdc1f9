//! The only writer of the kernel maps.
//!
//! It compares what is wanted with what the maps hold and writes the difference, in this order:
//!
//! 1. backend sets: a new run of slots, then one store of the set's word (no system call);
//! 2. new source ranges, new and changed frontends, then address entries and filter bits of their
//!    addresses;
//! 3. frontends that go, then their address entries and filter bits;
//! 4. sets and source ranges that nobody asks for any more, names, and the release of slots and ids.
//!
//! So no frontend ever leads to a set that is not there, and a frontend that passes from one
//! service port to another is replaced in one step. A service port that does not fit is refused as
//! a whole, its earlier state stays in force, and it is tried again when something was freed.
//!
//! The backends in force are not kept in memory twice: they are read from the shared slots. A
//! restarted daemon therefore compares in the same way as a running one.

mod addresses;
#[cfg(test)]
mod fake;
mod kernel;
mod maps;
mod open;
mod problems;
mod ranges;
mod report;
mod runs;
mod sets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use kproxy_common::{
    config::Config,
    net::{Addr, proto},
    service::{FrontendKey, FrontendValue, frontend_flags, service_port_id},
};

pub use self::report::{Fill, Report};
use self::{
    addresses::Addresses,
    maps::Counted,
    runs::{Run, Runs},
};
pub(crate) use self::{
    kernel::{KernelMaps, Parts},
    maps::Maps,
};
use super::codec;
use crate::{
    model::Problem,
    plan::{Change, Protocol, Scope, ServicePortId, ServicePortPlan},
};

/// The writer and what it knows of the maps.
pub(crate) struct Writer<M> {
    maps: Counted<M>,
    slots: Runs,
    ids: Runs,
    /// Service ports in the maps.
    ports: BTreeMap<ServicePortId, Port>,
    /// Their names by id.
    by_id: HashMap<u32, ServicePortId>,
    /// Every frontend in the map, without address entries.
    frontends: HashMap<FrontendKey, FrontendValue>,
    addresses: Addresses,
    /// Plans that are not, or not wholly, in force.
    pending: BTreeMap<ServicePortId, Pending>,
    /// Address entries that the map refused.
    address_problems: Vec<Problem>,
    /// Whether something was freed since the pending plans were last tried.
    has_room: bool,
    /// Frontends that lead to no known service port: left by a crash.
    strays: HashSet<FrontendKey>,
    /// Ids whose name or sets a crash has left behind.
    stray_ids: BTreeSet<u32>,
    /// Source ranges of ids that are no service port: left by a crash.
    stray_ranges: Vec<(u32, IpNet)>,
    /// Ids from here on have never been used: their counters are zero.
    untouched_from: u32,
    /// Whether a set picks by least connections, or has since this was opened.
    counts_connections: bool,
    /// Whether a service port is SCTP's, or was since this was opened.
    serves_sctp: bool,
}

/// A service port in the maps.
#[derive(Debug, Default)]
struct Port {
    id: u32,
    /// Runs of the cluster-wide and of the local set; `None` for an empty set, and for a word that
    /// leads nowhere.
    runs: [Option<Run>; 2],
    /// Frontends in the map that lead here.
    frontends: Vec<FrontendKey>,
    /// Endpoints in neither set that keep their UDP flows; `None`: an earlier run has left this
    /// service port, and nothing has been planned for it yet.
    serving: Option<Box<[(Addr, kproxy_common::net::Port)]>>,
    /// Source ranges in the map.
    ranges: BTreeSet<IpNet>,
}

/// A plan that is to be tried again.
#[derive(Debug)]
struct Pending {
    plan: ServicePortPlan,
    problems: Vec<Problem>,
}

/// Wanted frontends of a service port.
type Wanted = BTreeMap<FrontendKey, FrontendValue>;

/// A plan whose sets are published.
struct Accepted {
    plan: ServicePortPlan,
    wanted: Wanted,
    /// What its sets go without.
    problems: Vec<Problem>,
}

impl<M: Maps> Writer<M> {
    /// Makes the maps hold exactly `desired`: adds, changes and removes, and repairs what a crash
    /// has left. `now`: time of a monotonic clock.
    pub(crate) fn reconcile(
        &mut self,
        desired: impl IntoIterator<Item = ServicePortPlan>,
        now: Duration,
    ) -> Report {
        let mut work: BTreeMap<_, _> =
            desired.into_iter().map(|plan| (plan.id.clone(), Some(plan))).collect();
        for id in self.ports.keys().chain(self.pending.keys()) {
            if !work.contains_key(id) {
                work.insert(id.clone(), None);
            }
        }
        let mut report = self.run(work, now);
        self.clear_strays(&mut report);
        self.addresses.repair_filter(&self.maps);
        self.finish(report)
    }

    /// Applies changes and tries pending plans again if there may be room now.
    pub(crate) fn apply(&mut self, changes: Vec<Change>, now: Duration) -> Report {
        let mut work = BTreeMap::new();
        for change in changes {
            match change {
                Change::Set(plan) => work.insert(plan.id.clone(), Some(plan)),
                Change::Remove(id) => work.insert(id, None),
            };
        }
        let report = self.run(work, now);
        self.finish(report)
    }

    /// The node has these addresses and no others.
    pub(crate) fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        let mut report = Report::default();
        self.addresses.set_node(addresses);
        self.settle(&mut report);
        self.finish(report)
    }

    /// The settings that the programs read.
    pub(crate) fn config(&mut self) -> Config {
        self.maps.config().get(0).unwrap_or_default()
    }

    /// Changes the settings that the programs read. Whether they changed.
    pub(crate) fn set_config(&mut self, config: &Config) -> bool {
        self.config() != *config && self.maps.config().write(0, config)
    }

    /// The ranges of ClusterIPs, as many of each family as the programs know. Whether they changed.
    pub(crate) fn set_service_ranges(&mut self, ranges: &[IpNet]) -> bool {
        let service = codec::encode_service_ranges(ranges);
        let config = Config { service, ..self.config() };
        self.set_config(&config)
    }

    /// Everything that is not in force now, as last reported.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let pending = self.pending.values().flat_map(|pending| &pending.problems);
        pending.chain(&self.address_problems)
    }

    /// Whether something waits to be tried again.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
            || self.addresses.is_unsettled()
            || !self.strays.is_empty()
            || !self.stray_ranges.is_empty()
    }

    /// The service that a UDP frontend leads to: an address and port as a socket dialled it, so the
    /// address may be one of the node's own.
    pub(crate) fn udp_service(&self, addr: Addr, port: kproxy_common::net::Port) -> Option<u32> {
        let lookup = |addr| self.frontends.get(&FrontendKey::new(addr, port, proto::UDP));
        let found = lookup(addr).or_else(|| lookup(addr.unspecified_of_family()));
        found.map(|value| value.internal)
    }

    /// Whether a backend may keep what it was given of the service port that owns service `index`:
    /// it is in one of the sets, or serves all the same (CT-05). Unknown as long as nothing has
    /// been planned: then it may.
    pub(crate) fn serves(&self, index: u32, addr: Addr, port: kproxy_common::net::Port) -> bool {
        let id = service_port_id(index);
        let Some(owner) = self.by_id.get(&id).and_then(|name| self.ports.get(name)) else {
            return false;
        };
        let Some(serving) = &owner.serving else { return true };
        let in_set = |scope| {
            let Some(set) = self.maps.services().get(codec::index_of(id, scope)) else {
                return false;
            };
            let word = codec::word_of(&set);
            (0..u32::from(word.count)).any(|i| {
                let slot = self.maps.slots().get(word.first.wrapping_add(i));
                slot.is_some_and(|slot| slot.addr == addr && slot.port == port)
            })
        };
        in_set(Scope::Cluster) || in_set(Scope::Local) || serving.contains(&(addr, port))
    }

    /// Whether open connections are counted: a service port picks by their number, or has done so
    /// and its connections go on.
    pub(crate) const fn counts_connections(&self) -> bool {
        self.counts_connections
    }

    /// Whether a service port is SCTP's, or was since the maps were opened.
    pub(crate) const fn serves_sctp(&self) -> bool {
        self.serves_sctp
    }

    /// Number of service ports in the maps.
    pub(crate) fn service_ports(&self) -> usize {
        self.ports.len()
    }

    /// Fill of FRONTENDS, SERVICES and SLOTS.
    pub(crate) fn fills(&self) -> [Fill; 3] {
        let frontends = self.frontends.len() + self.addresses.entries();
        [
            Fill { used: frontends as u32, capacity: self.maps.frontends_capacity() },
            Fill { used: self.ids.used() * 2, capacity: self.maps.services().len() },
            Fill { used: self.slots.used(), capacity: self.slots.capacity() },
        ]
    }

    /// Tries everything again that a map has refused.
    pub(crate) fn retry(&mut self, now: Duration) -> Report {
        self.has_room = true;
        self.apply(Vec::new(), now)
    }

    fn finish(&mut self, mut report: Report) -> Report {
        report.writes += self.maps.take_writes();
        let mut seen = HashSet::new();
        report.problems.retain(|problem| seen.insert(problem.clone()));
        report
    }

    /// One pass over the phases. `None` removes a service port.
    fn run(
        &mut self,
        mut work: BTreeMap<ServicePortId, Option<ServicePortPlan>>,
        now: Duration,
    ) -> Report {
        let woken = [self.slots.wake(now), self.ids.wake(now)];
        if std::mem::replace(&mut self.has_room, false) || woken.contains(&true) {
            for (id, pending) in std::mem::take(&mut self.pending) {
                work.entry(id).or_insert(Some(pending.plan));
            }
        }
        for id in work.keys() {
            self.pending.remove(id);
        }

        let mut report = Report::default();
        self.clear_stray_ranges(&mut report);
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut removed = Vec::new();
        for (id, plan) in work {
            match plan {
                None => removed.push(id),
                Some(plan) => match self.publish(&plan, now, &mut report) {
                    Ok((id, problems)) => {
                        let wanted = wanted_frontends(&plan, id);
                        accepted.push(Accepted { plan, wanted, problems });
                    }
                    Err(problem) => self.postpone(plan, vec![problem], &mut report),
                },
            }
        }

        let mut leaving = self.leaving(&accepted, &removed);
        for Accepted { plan, wanted, problems } in &mut accepted {
            let mut problems = std::mem::take(problems);
            problems.extend(self.add_ranges(plan));
            problems.extend(self.add_frontends(&plan.id, wanted, &mut leaving));
            if !problems.is_empty() {
                self.postpone(plan.clone(), problems, &mut report);
            }
        }
        self.settle(&mut report);
        for key in leaving {
            self.remove_frontend(&key, &mut report);
        }
        self.settle(&mut report);
        for Accepted { plan, .. } in &accepted {
            self.retire_local(plan, now);
            self.retire_ranges(plan, &mut report);
        }
        for id in removed {
            self.remove_port(&id, now, &mut report);
        }
        report
    }

    /// Brings address entries and filter bits in step with the frontends.
    fn settle(&mut self, report: &mut Report) {
        let refused = self.addresses.settle(&mut self.maps);
        self.address_problems.clear();
        if refused.is_empty() {
            return;
        }
        let owners: HashMap<Addr, &ServicePortId> = self
            .frontends
            .iter()
            .filter(|(_, value)| value.flags & frontend_flags::CLUSTER_IP != 0)
            .filter_map(|(key, value)| {
                Some((key.addr, self.by_id.get(&service_port_id(value.internal))?))
            })
            .collect();
        self.address_problems.extend(refused.iter().map(|refused| {
            let owner = owners.get(&refused.addr).copied();
            problems::address(refused.addr.into(), refused.node, owner, &refused.refusal)
        }));
        report.problems.extend(self.address_problems.iter().cloned());
    }

    fn postpone(&mut self, plan: ServicePortPlan, problems: Vec<Problem>, report: &mut Report) {
        report.problems.extend(problems.iter().cloned());
        self.pending.insert(plan.id.clone(), Pending { plan, problems });
    }

    /// Frontends in the map that nobody wants any more.
    fn leaving(
        &mut self,
        accepted: &[Accepted],
        removed: &[ServicePortId],
    ) -> HashSet<FrontendKey> {
        let mut leaving = std::mem::take(&mut self.strays);
        for Accepted { plan, wanted, .. } in accepted {
            let Some(port) = self.ports.get(&plan.id) else { continue };
            leaving.extend(port.frontends.iter().filter(|key| !wanted.contains_key(key)));
        }
        for port in removed.iter().filter_map(|id| self.ports.get(id)) {
            leaving.extend(&port.frontends);
        }
        leaving
    }

    /// Adds and changes the frontends of a service port; takes over those that leave another one.
    fn add_frontends(
        &mut self,
        id: &ServicePortId,
        wanted: &Wanted,
        leaving: &mut HashSet<FrontendKey>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, value) in wanted {
            let present = self.frontends.get(key).copied();
            let leaves = leaving.contains(key);
            if present == Some(*value) && !leaves {
                continue;
            }
            let owner = present.map(|value| service_port_id(value.internal));
            let moves = owner.is_some_and(|owner| owner != service_port_id(value.internal));
            if moves && !leaves {
                let owner = owner.and_then(|owner| self.by_id.get(&owner));
                let owner = owner.map_or_else(|| "unknown".to_owned(), ServicePortId::text);
                problems.push(problems::taken(id, &describe(key), &owner));
                continue;
            }
            if let Err(refusal) = self.maps.set_frontend(key, value) {
                let effect = format!("{} does not lead to it", describe(key));
                let (map, option) = ("KP_FRONTENDS", "--max-frontends");
                problems.push(problems::refused(id, &refusal, map, option, &effect));
                continue;
            }
            leaving.remove(key);
            if let Some(old) = present {
                self.forget_frontend(key, &old);
            }
            self.frontends.insert(*key, *value);
            self.addresses.add(key, value.flags);
            if let Some(port) = self.ports.get_mut(id) {
                port.frontends.push(*key);
            }
        }
        problems
    }

    fn remove_frontend(&mut self, key: &FrontendKey, report: &mut Report) {
        let Some(value) = self.frontends.get(key).copied() else { return };
        if let Err(refusal) = self.maps.remove_frontend(key) {
            // Tried again in the next pass; until then its id must lead nowhere else.
            let (why, remedy) = problems::explain(&refusal, "KP_FRONTENDS", "--max-frontends");
            let what = format!("{why}; it still leads to a Service that is gone");
            report.problems.push(Problem::new(format!("frontend {}", describe(key)), what, remedy));
            self.strays.insert(*key);
            return;
        }
        self.forget_frontend(key, &value);
        self.frontends.remove(key);
        self.has_room = true;
    }

    /// Takes a frontend out of the accounts of its address and its owner.
    fn forget_frontend(&mut self, key: &FrontendKey, value: &FrontendValue) {
        self.addresses.remove(key, value.flags);
        let owner = self.by_id.get(&service_port_id(value.internal));
        if let Some(port) = owner.and_then(|owner| self.ports.get_mut(owner)) {
            port.frontends.retain(|other| other != key);
        }
    }

    /// Removes a service port whose frontends are gone.
    fn remove_port(&mut self, id: &ServicePortId, now: Duration, report: &mut Report) {
        let ranges_left = self.remove_ranges(id, &[]);
        let Some(port) = self.ports.remove(id) else { return };
        self.stray_ranges.extend(port.ranges.iter().map(|net| (port.id, *net)));
        report.problems.extend(ranges_left);
        self.by_id.remove(&port.id);
        for scope in [Scope::Cluster, Scope::Local] {
            self.clear_set(port.id, scope);
        }
        for run in port.runs.into_iter().flatten() {
            self.slots.give_back(run, now);
        }
        let name_left = self.maps.remove_name(port.id).err();
        if let Some(refusal) = &name_left {
            let effect = "its name stays in the map";
            let (map, option) = ("KP_NAMES", "--max-services");
            report.problems.push(problems::refused(id, refusal, map, option, effect));
        }
        // An id that something still refers to is not given out again.
        if port.frontends.is_empty() && port.ranges.is_empty() && name_left.is_none() {
            self.ids.give_back(Run { first: port.id, len: 1 }, now);
        } else {
            self.stray_ids.insert(port.id);
        }
        self.has_room = true;
    }
}

/// The frontends of a plan as the map holds them. An address that a Service lists twice is one
/// entry of both kinds.
fn wanted_frontends(plan: &ServicePortPlan, id: u32) -> Wanted {
    let mut wanted = Wanted::new();
    for frontend in &plan.frontends {
        let (key, value) = codec::encode_frontend(frontend, plan.id.protocol, id);
        wanted.entry(key).and_modify(|first| first.flags |= value.flags).or_insert(value);
    }
    wanted
}

fn describe(key: &FrontendKey) -> String {
    let protocol = Protocol::from_number(key.proto).map_or("?", Protocol::name);
    let addr = IpAddr::from(key.addr);
    if addr.is_unspecified() {
        return format!("NodePort {} {protocol}", key.port.get());
    }
    format!("{} {protocol}", std::net::SocketAddr::new(addr, key.port.get()))
}
