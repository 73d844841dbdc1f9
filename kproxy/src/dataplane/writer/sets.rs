//! Backend sets: runs of slots and the words that publish them.

use std::{mem::replace, time::Duration};

use kproxy_common::{
    abi::map,
    service::{Service, Word, cluster_index, local_index},
};

use super::{
    allocator::Run,
    maps::Maps,
    problems,
    room::Step,
    state::{ServicePort, Writer},
};
use crate::{
    dataplane::{codec, report::Report},
    model::Problem,
    plan::{Algorithm, BackendSet, Protocol, Scope, ServicePortPlan},
};

impl<M: Maps> Writer<M> {
    /// Publishes the sets of a plan, giving the service port an id and a name if it is new. All or
    /// nothing for a new one. On an error of another one its frontends stay, and so does the set that
    /// has no room; the other set is published. With the id comes what a set goes without.
    pub(super) fn publish(
        &mut self,
        plan: &ServicePortPlan,
        now: Duration,
        report: &mut Report,
    ) -> Result<(u32, Vec<Problem>), Problem> {
        let is_new = !self.service_ports.contains_key(&plan.id);
        let id = match self.service_ports.get(&plan.id) {
            Some(port) => port.id,
            None => self.new_id(plan)?,
        };
        let published = self.publish_sets(plan, id, is_new, now, report);
        if let (Ok(problems), Some(port)) = (&published, self.service_ports.get_mut(&plan.id)) {
            port.serving = Some(codec::encode_serving(plan, !problems.is_empty()));
        }
        if is_new && published.is_err() {
            // Nothing was published: only the name has to go again.
            match self.maps.remove_name(id) {
                Ok(()) => self.ids.free_unseen(Run { first: id, len: 1 }),
                Err(_) => drop(self.stray_ids.insert(id)),
            }
        }
        published.map(|problems| (id, problems))
    }

    fn publish_sets(
        &mut self,
        plan: &ServicePortPlan,
        id: u32,
        is_new: bool,
        now: Duration,
        report: &mut Report,
    ) -> Result<Vec<Problem>, Problem> {
        let sets = [(Scope::Cluster, Some(&plan.cluster)), (Scope::Local, plan.local.as_ref())];
        let (mut steps, mut problems, mut refused) = (Vec::new(), Vec::new(), None);
        for (scope, set) in sets {
            let Some(set) = set else { continue };
            match self.prepare(plan, id, scope, is_new, now, &mut problems) {
                Ok(step) => steps.push((scope, set, step)),
                Err(problem) if is_new => {
                    for (_, _, step) in steps {
                        if let Step::Publish(Some(run), _) = step {
                            self.slots.free_unseen(run);
                        }
                    }
                    return Err(problem);
                }
                Err(problem) => refused = Some(problem),
            }
        }
        if is_new {
            self.by_id.insert(id, plan.id.clone());
            self.service_ports
                .insert(plan.id.clone(), ServicePort { id, ..ServicePort::default() });
        }
        for (scope, set, step) in steps {
            report.words += usize::from(self.publish_set(plan, id, scope, set, step, now));
        }
        self.counts_connections |= plan.algorithm == Algorithm::LeastConnections;
        self.serves_sctp |= plan.id.protocol == Protocol::Sctp;
        refused.map_or(Ok(problems), Err)
    }

    /// Makes the entry of a set say what was prepared. Whether it did not before.
    fn publish_set(
        &mut self,
        plan: &ServicePortPlan,
        id: u32,
        scope: Scope,
        set: &BackendSet,
        step: Step,
        now: Duration,
    ) -> bool {
        let index = codec::index_of(id, scope);
        let present = self.maps.services().get(index).unwrap_or_default();
        let mut next = Service {
            flags: codec::encode_flags(plan.algorithm),
            affinity_seconds: plan.affinity_seconds.unwrap_or(0),
            ..present
        };
        let old = match step {
            Step::Keep => return false,
            Step::Rewrite => None,
            Step::Publish(run, count) => {
                let word = Word {
                    first: run.map_or(codec::encode_verdict(set.when_empty), |run| run.first),
                    count,
                    generation: codec::word_of(&present).generation.wrapping_add(1),
                };
                next.word = word.pack();
                let port = self.service_ports.get_mut(&plan.id);
                let old = port.and_then(|port| replace(&mut port.runs[scope as usize], run));
                old.map(|old| (old, run.unwrap_or(Run { len: 0, ..old })))
            }
        };
        // The slots were written before: whoever sees the word sees them.
        let stored = self.maps.services().publish(index, &next);
        debug_assert!(stored, "ids are below the capacity of SERVICES");
        // A set that did not fit may go on in a part of its run, or beyond it.
        for left in old.into_iter().flat_map(|(old, run)| old.without(run)) {
            self.slots.free(left, now);
        }
        true
    }

    fn new_id(&mut self, plan: &ServicePortPlan) -> Result<u32, Problem> {
        let port_id = &plan.id;
        let name = codec::encode_name(port_id).ok_or_else(|| problems::bad_name(port_id))?;
        let Some(Run { first: id, .. }) = self.ids.allocate(1, 0) else {
            self.missing.add(plan);
            return Err(problems::no_id(port_id));
        };
        let mut made = self.maps.set_name(id, &name).map_err(|refusal| {
            problems::refused(port_id, &refusal, map::NAMES, "it is not served")
        });
        if id < self.untouched_from {
            for index in [cluster_index(id), local_index(id)] {
                made = made.and_then(|()| {
                    self.maps.reset_counters(index).map_err(|refusal| {
                        let effect = "it is not served";
                        problems::refused(port_id, &refusal, map::COUNTERS, effect)
                    })
                });
            }
        }
        if let Err(problem) = made {
            self.ids.free_unseen(Run { first: id, len: 1 });
            return Err(problem);
        }
        self.untouched_from = self.untouched_from.max(id + 1);
        self.stray_ids.remove(&id);
        Ok(id)
    }

    /// Clears the local set of a service port whose frontends no longer lead to it.
    pub(super) fn retire_local(&mut self, plan: &ServicePortPlan, now: Duration) {
        let Some(port) = self.service_ports.get_mut(&plan.id) else { return };
        // A frontend that could not be changed may still lead there: the plan is pending then.
        if plan.local.is_some() || self.pending.contains_key(&plan.id) {
            return;
        }
        let (id, run) = (port.id, port.runs[Scope::Local as usize].take());
        self.clear_set(id, Scope::Local);
        if let Some(run) = run {
            self.slots.free(run, now);
            self.has_room = true;
        }
    }

    /// Marks a set's entry free. The generation goes on, so that no socket takes a later set of
    /// the same index for the one that it knew.
    pub(super) fn clear_set(&self, id: u32, scope: Scope) {
        let index = codec::index_of(id, scope);
        let Some(present) = self.maps.services().get(index) else { return };
        if present.flags == 0 {
            return;
        }
        let generation = codec::word_of(&present).generation.wrapping_add(1);
        let free =
            Service { word: Word { generation, ..Word::default() }.pack(), ..Service::default() };
        let stored = self.maps.services().publish(index, &free);
        debug_assert!(stored, "the entry has just been read");
    }
}
