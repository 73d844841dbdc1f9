//! One pass over the maps: from plans to what is in force.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use kproxy_common::{
    abi::map,
    net::Addr,
    service::{FrontendKey, frontend_flags, service_port_id},
};

use super::{
    allocator::Run,
    frontends::WantedFrontends,
    maps::{Maps, Refusal},
    missing::Missing,
    problems,
    state::Writer,
};
use crate::{
    dataplane::{codec, report::Report},
    model::Problem,
    plan::{Change, Scope, ServicePortId, ServicePortPlan},
};

/// A plan whose sets are published.
struct Accepted {
    plan: ServicePortPlan,
    wanted: WantedFrontends,
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
        for id in self.service_ports.keys().chain(self.pending.keys()) {
            if !work.contains_key(id) {
                work.insert(id.clone(), None);
            }
        }
        let mut report = self.pass(work, now);
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
        let report = self.pass(work, now);
        self.finish(report)
    }

    /// The node has these addresses and no others.
    pub(crate) fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        let mut report = Report::default();
        self.addresses.set_node(addresses);
        self.settle(&mut report);
        self.finish(report)
    }

    fn finish(&mut self, mut report: Report) -> Report {
        report.writes += self.maps.take_writes();
        let mut seen = HashSet::new();
        report.problems.retain(|problem| seen.insert(problem.clone()));
        report
    }

    /// One pass over the phases. `None` removes a service port.
    fn pass(
        &mut self,
        mut work: BTreeMap<ServicePortId, Option<ServicePortPlan>>,
        now: Duration,
    ) -> Report {
        let reclaimed = [self.slots.reclaim(now), self.ids.reclaim(now)];
        if std::mem::replace(&mut self.has_room, false) || reclaimed.contains(&true) {
            for (id, plan) in std::mem::take(&mut self.pending) {
                work.entry(id).or_insert(Some(plan));
            }
        }
        for id in work.keys() {
            self.pending.remove(id);
        }

        self.missing = Missing::default();
        let mut report = Report::default();
        self.clear_stray_ranges(&mut report);
        let mut accepted: Vec<Accepted> = Vec::new();
        let mut removed = Vec::new();
        for (id, plan) in work {
            match plan {
                None => removed.push(id),
                Some(plan) => match self.publish(&plan, now, &mut report) {
                    Ok((id, problems)) => {
                        let wanted = codec::encode_frontends(&plan, id);
                        accepted.push(Accepted { plan, wanted, problems });
                    }
                    Err(problem) => self.postpone(plan, vec![problem], &mut report),
                },
            }
        }

        report.problems.extend(std::mem::take(&mut self.shortage).problems);

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
            self.remove_service_port(&id, now, &mut report);
        }
        let waits = !self.pending.is_empty();
        let next = [self.slots.next_room(now), self.ids.next_room(now)];
        report.room_in = next.into_iter().flatten().min().filter(|_| waits);
        report
    }

    /// Brings address entries and filter bits in step with the frontends.
    fn settle(&mut self, report: &mut Report) {
        let refused = self.addresses.settle(&mut self.maps);
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
        let full = refused.iter().filter(|refused| refused.refusal == Refusal::Full).count();
        self.missing.frontends = self.missing.frontends.saturating_add(full as u32);
        let problems: Vec<_> = refused
            .iter()
            .map(|refused| {
                let owner = owners.get(&refused.addr).copied();
                problems::address(refused.addr.into(), refused.node, owner, &refused.refusal)
            })
            .collect();
        self.missing.problems.extend(problems.iter().cloned());
        report.problems.extend(problems);
    }

    pub(super) fn postpone(
        &mut self,
        plan: ServicePortPlan,
        problems: Vec<Problem>,
        report: &mut Report,
    ) {
        self.missing.problems.extend(problems.iter().cloned());
        report.problems.extend(problems);
        self.pending.insert(plan.id.clone(), plan);
    }

    /// Frontends in the map that nobody wants any more.
    fn leaving(
        &mut self,
        accepted: &[Accepted],
        removed: &[ServicePortId],
    ) -> HashSet<FrontendKey> {
        let mut leaving = std::mem::take(&mut self.stray_frontends);
        for Accepted { plan, wanted, .. } in accepted {
            let Some(port) = self.service_ports.get(&plan.id) else { continue };
            leaving.extend(port.frontends.iter().filter(|key| !wanted.contains_key(key)));
        }
        for port in removed.iter().filter_map(|id| self.service_ports.get(id)) {
            leaving.extend(&port.frontends);
        }
        leaving
    }

    /// Removes a service port whose frontends are gone.
    fn remove_service_port(&mut self, id: &ServicePortId, now: Duration, report: &mut Report) {
        let ranges_left = self.remove_ranges(id, &[]);
        let Some(port) = self.service_ports.remove(id) else { return };
        self.stray_ranges.extend(port.ranges.iter().map(|net| (port.id, *net)));
        report.problems.extend(ranges_left);
        self.by_id.remove(&port.id);
        for scope in [Scope::Cluster, Scope::Local] {
            self.clear_set(port.id, scope);
        }
        for run in port.runs.into_iter().flatten() {
            self.slots.free(run, now);
        }
        let name_left = self.maps.remove_name(port.id).err();
        if let Some(refusal) = &name_left {
            let effect = "its name stays in the map";
            report.problems.push(problems::refused(id, refusal, map::NAMES, effect));
        }
        // An id that something still refers to is not given out again.
        if port.frontends.is_empty() && port.ranges.is_empty() && name_left.is_none() {
            self.ids.free(Run { first: port.id, len: 1 }, now);
        } else {
            self.stray_ids.insert(port.id);
        }
        self.has_room = true;
    }
}
