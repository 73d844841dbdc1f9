//! Backend sets: runs of slots and the words that publish them.

use std::time::Duration;

use kproxy_common::{
    abi::map,
    service::{Service, Slot, Word, cluster_index, local_index, service_flags},
};

use super::{
    allocator::Run,
    maps::Maps,
    problems,
    state::{ServicePort, Writer},
};
use crate::{
    dataplane::{codec, report::Report},
    model::Problem,
    plan::{Algorithm, BackendSet, Protocol, Scope, ServicePortId, ServicePortPlan},
};

/// What is to be done for one set.
enum Step {
    /// The maps already hold it.
    Keep,
    /// Only the fields beside the word differ.
    Rewrite,
    /// A new word, and the new run unless the set is empty. The slots are filled.
    Publish(Option<Run>),
}

impl<M: Maps> Writer<M> {
    /// Publishes the sets of a plan, giving the service port an id and a name if it is new. All or
    /// nothing: on an error the earlier sets stay in force. With the id comes what a set goes without.
    pub(super) fn publish(
        &mut self,
        plan: &ServicePortPlan,
        now: Duration,
        report: &mut Report,
    ) -> Result<(u32, Vec<Problem>), Problem> {
        let is_new = !self.service_ports.contains_key(&plan.id);
        let id = match self.service_ports.get(&plan.id) {
            Some(port) => port.id,
            None => self.new_id(&plan.id)?,
        };
        let published = self.publish_sets(plan, id, is_new, now, report);
        if let (Ok(_), Some(port)) = (&published, self.service_ports.get_mut(&plan.id)) {
            port.serving = Some(codec::encode_serving(plan));
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
        let (mut steps, mut problems) = (Vec::new(), Vec::new());
        for (scope, set) in sets {
            let Some(set) = set else { continue };
            match self.prepare(plan, id, scope, set, is_new, &mut problems) {
                Ok(step) => steps.push((scope, set, step)),
                Err(problem) => {
                    for (_, _, step) in steps {
                        if let Step::Publish(Some(run)) = step {
                            self.slots.free_unseen(run);
                        }
                    }
                    return Err(problem);
                }
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
        Ok(problems)
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
            Step::Publish(run) => {
                let word = Word {
                    first: run.map_or(codec::encode_verdict(set.when_empty), |run| run.first),
                    count: set.backends.len() as u16,
                    generation: codec::word_of(&present).generation.wrapping_add(1),
                };
                next.word = word.pack();
                let port = self.service_ports.get_mut(&plan.id);
                port.and_then(|port| std::mem::replace(&mut port.runs[scope as usize], run))
            }
        };
        // The slots were written before: whoever sees the word sees them.
        let stored = self.maps.services().publish(index, &next);
        debug_assert!(stored, "ids are below the capacity of SERVICES");
        if let Some(old) = old {
            self.slots.free(old, now);
        }
        true
    }

    /// Compares a set with the maps and, if it differs, fills a new run that nobody sees yet.
    fn prepare(
        &mut self,
        plan: &ServicePortPlan,
        id: u32,
        scope: Scope,
        set: &BackendSet,
        is_new: bool,
        problems: &mut Vec<Problem>,
    ) -> Result<Step, Problem> {
        let port_id = &plan.id;
        let mut slots = codec::encode_run(plan, scope, set);
        let index = codec::index_of(id, scope);
        let present = self.maps.services().get(index).unwrap_or_default();
        let known =
            Some(present).filter(|present| present.flags & service_flags::IN_USE != 0 && !is_new);
        let held = self.service_ports.get(port_id).and_then(|port| port.runs[scope as usize]);
        if let Some(step) = self.without_run(known, held, plan, set, &slots) {
            return Ok(step);
        }
        let count = set.backends.len();
        if count > Word::MAX_BACKENDS {
            return Err(problems::too_many_backends(port_id, count, is_new));
        }
        if count == 0 {
            return Ok(Step::Publish(None));
        }
        let mut run = self.slots.allocate(slots.len() as u32);
        if run.is_none() && codec::drop_table(&mut slots, count) {
            problems.push(problems::no_table(port_id));
            if let Some(step) = self.without_run(known, held, plan, set, &slots) {
                return Ok(step);
            }
            run = self.slots.allocate(slots.len() as u32);
        }
        let Some(run) = run else {
            return Err(problems::no_slots(port_id, count, is_new));
        };
        for (number, slot) in (run.first..).zip(&slots) {
            let stored = self.maps.slots().write(number, slot);
            debug_assert!(stored, "runs are below the capacity of SLOTS");
        }
        Ok(Step::Publish(Some(run)))
    }

    /// What is to be done for a set whose slots are in the maps already; `None` for any other.
    fn without_run(
        &self,
        known: Option<Service>,
        held: Option<Run>,
        plan: &ServicePortPlan,
        set: &BackendSet,
        slots: &[Slot],
    ) -> Option<Step> {
        let present = known.filter(|present| self.holds(present, held, set, slots))?;
        let same = present.affinity_seconds == plan.affinity_seconds.unwrap_or(0)
            && present.flags == codec::encode_flags(plan.algorithm);
        Some(if same { Step::Keep } else { Step::Rewrite })
    }

    /// Whether the published word and its slots say just what `set` and its `slots` say.
    fn holds(&self, present: &Service, run: Option<Run>, set: &BackendSet, slots: &[Slot]) -> bool {
        let word = codec::word_of(present);
        if usize::from(word.count) != set.backends.len() {
            return false;
        }
        match run {
            None => word.count == 0 && word.first == codec::encode_verdict(set.when_empty),
            Some(run) => (run.first..)
                .zip(slots)
                .all(|(number, slot)| self.maps.slots().get(number) == Some(*slot)),
        }
    }

    fn new_id(&mut self, port_id: &ServicePortId) -> Result<u32, Problem> {
        let name = codec::encode_name(port_id).ok_or_else(|| problems::bad_name(port_id))?;
        let Some(Run { first: id, .. }) = self.ids.allocate(1) else {
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
