//! Where the slots of a set go, and what it goes without when the map is full.
//!
//! What makes a set larger leaves a spare part of the map free: so a set that changes and does not
//! grow finds a place beside its old run. Where even that is full, the endpoints that go are taken
//! out without a new run: the word leads to a part of the old one, and what is new waits. A lookup
//! table leaves far more, and gives way when backends do not fit. All that counts once the map has its
//! largest size: before that it grows.

use std::{ops::Range, time::Duration};

use kproxy_common::{
    maglev::table_slots,
    service::{Service, Slot, Word, service_flags, slot_flags},
};

use super::{
    allocator::Run,
    maps::Maps,
    problems,
    state::{ServicePort, Writer},
};
use crate::{
    dataplane::codec,
    model::Problem,
    plan::{BackendSet, Scope, ServicePortId, ServicePortPlan},
};

/// Parts of the map of which a set that grows leaves one free, and a set that gets a table.
const SPARE: u32 = 16;
const SPARE_OF_TABLES: u32 = 4;

/// What is to be done for one set.
pub(super) enum Step {
    /// The maps already hold it.
    Keep,
    /// Only the fields beside the word differ.
    Rewrite,
    /// A new word: a run with so many backends, whose slots are filled; `None` for an empty set.
    Publish(Option<Run>, u16),
}

/// What is in force of a set.
struct Present<'a> {
    /// Its entry; `None`: it is not in use.
    entry: Option<Service>,
    run: Option<Run>,
    plan: &'a ServicePortPlan,
    set: &'a BackendSet,
}

impl<M: Maps> Writer<M> {
    /// Compares a set with the maps and, if it differs, fills slots that nobody sees yet. What the
    /// set goes without is added to `problems`; an error leaves it as it is.
    pub(super) fn prepare(
        &mut self,
        plan: &ServicePortPlan,
        id: u32,
        scope: Scope,
        is_new: bool,
        now: Duration,
        problems: &mut Vec<Problem>,
    ) -> Result<Step, Problem> {
        let set = match scope {
            Scope::Cluster => Some(&plan.cluster),
            Scope::Local => plan.local.as_ref(),
        };
        let Some(set) = set else { return Ok(Step::Keep) };
        let port_id = &plan.id;
        let entry = self.maps.services().get(codec::index_of(id, scope)).filter(|_| !is_new);
        let present = Present {
            entry: entry.filter(|entry| entry.flags & service_flags::IN_USE != 0),
            run: self.service_ports.get(port_id).and_then(|port| port.runs[scope as usize]),
            plan,
            set,
        };
        let slots = codec::encode_run(plan, scope, set);
        let count = set.backends.len();
        if count > Word::MAX_BACKENDS {
            let problem = problems::too_many_backends(port_id, count, is_new);
            let Some(step) = self.without_some(&present, &slots) else { return Err(problem) };
            problems.push(problem);
            return Ok(step);
        }
        if codec::wants_table(plan, set) {
            if let Some(step) = self.with_table(&present, &slots) {
                return Ok(step);
            }
            self.missing.add_set(count, true);
            problems.push(problems::no_table(port_id));
        }
        if let Some(step) = self.in_place(&present, &slots) {
            return Ok(step);
        }
        if slots.is_empty() {
            return Ok(Step::Publish(None, 0));
        }
        let len = slots.len() as u32;
        let held = present.entry.zip(present.run);
        let grows = held.is_none_or(|(entry, run)| len > self.without_table(&entry, run).len);
        let spare = if grows { self.slots.capacity() / SPARE } else { 0 };
        let run = self.slots.allocate(len, spare);
        let extended = || Some(self.extend(&present, &slots, spare, false)?.1);
        if let Some(run) = run.or_else(extended) {
            self.fill(run, &slots);
            return Ok(Step::Publish(Some(run), count as u16));
        }
        let step = self.without_some(&present, &slots);
        // Where only those at an end have gone, the others are a run as they stand.
        let is_whole =
            matches!(step, Some(Step::Publish(_, serve)) if serve as usize == slots.len());
        if !is_whole {
            self.missing.add_set(count, codec::wants_table(plan, set));
            if !self.may_have_more_slots() {
                self.take_tables(len, now);
            }
            problems.push(problems::no_slots(port_id, count, is_new));
        }
        step.ok_or_else(|| problems::no_slots(port_id, count, is_new))
    }

    /// The set with a lookup table, if there is room for that.
    fn with_table(&mut self, present: &Present<'_>, slots: &[Slot]) -> Option<Step> {
        let backends = present.set.backends.len();
        let has_table =
            present.entry.is_some() && present.run.is_some_and(|run| self.has_table(run));
        let spare = self.slots.capacity() / if has_table { SPARE } else { SPARE_OF_TABLES };
        let len = slots.len() as u32 + table_slots(backends as u32);
        // A table takes time to make.
        if !has_table && !self.slots.has_room(len, spare) {
            return None;
        }
        let mut slots = slots.to_vec();
        codec::add_table(&mut slots, present.set);
        if let Some(step) = self.in_place(present, &slots) {
            return Some(step);
        }
        let run = self.slots.allocate(len, spare)?;
        self.fill(run, &slots);
        Some(Step::Publish(Some(run), backends as u16))
    }

    /// What is to be done for a set whose slots are in the maps already; `None` for any other.
    fn in_place(&self, present: &Present<'_>, slots: &[Slot]) -> Option<Step> {
        let set = present.set;
        let word = codec::word_of(&present.entry?);
        let holds = usize::from(word.count) == set.backends.len()
            && match present.run {
                None => word.count == 0 && word.first == codec::encode_verdict(set.when_empty),
                Some(run) => {
                    run.len as usize == slots.len()
                        && (run.first..)
                            .zip(slots)
                            .all(|(number, slot)| self.maps.slots().get(number) == Some(*slot))
                }
            };
        holds.then(|| self.beside_word(present))
    }

    /// What is to be done for a set that keeps its word.
    fn beside_word(&self, present: &Present<'_>) -> Step {
        let plan = present.plan;
        let same = present.entry.is_some_and(|entry| {
            entry.affinity_seconds == plan.affinity_seconds.unwrap_or(0)
                && entry.flags == codec::encode_flags(plan.algorithm)
        });
        if same { Step::Keep } else { Step::Rewrite }
    }

    /// Takes free slots on both sides of a run that has only some of the backends of `slots`: for
    /// all of them, or with `partly` for as many as there is room. Which of them the run is then for,
    /// and the run.
    fn extend(
        &mut self,
        present: &Present<'_>,
        slots: &[Slot],
        spare: u32,
        partly: bool,
    ) -> Option<(Range<usize>, Run)> {
        let held = present.run?;
        let inner = self.backends_in_force(present);
        let first = inner.first()?;
        let from = slots.iter().position(|slot| codec::inner_slot(*slot) == *first)?;
        let same = slots.iter().skip(from).take(inner.len()).map(|slot| codec::inner_slot(*slot));
        if inner.len() != held.len as usize || !same.eq(inner) {
            return None;
        }
        let (before, behind) = (from as u32, (slots.len() - from) as u32 - held.len);
        let (free_before, free_behind) = self.slots.free_beside(held);
        let (left, right) = (before.min(free_before), behind.min(free_behind));
        let complete = (left, right) == (before, behind);
        if left + right == 0 || !(complete || partly) || !self.slots.leaves(left + right, spare) {
            return None;
        }
        let run = Run { first: held.first - left, len: left + held.len + right };
        for part in run.without(held) {
            let claimed = self.slots.claim(part);
            debug_assert!(claimed, "it is free");
        }
        let from = from - left as usize;
        Some((from..from + run.len as usize, run))
    }

    /// What is to be done for a set that does not fit as it should be: the backends that are gone
    /// are taken out, and of the others as many serve as can. `None` for a set that is not in use.
    fn without_some(&mut self, present: &Present<'_>, slots: &[Slot]) -> Option<Step> {
        present.entry?;
        let wanted: Vec<Slot> = slots
            .iter()
            .take(present.set.backends.len())
            .map(|slot| codec::inner_slot(*slot))
            .collect();
        let in_force = self.backends_in_force(present);
        let stays = |slot: &Slot| {
            wanted
                .binary_search_by_key(&slot.order(), Slot::order)
                .is_ok_and(|place| wanted[place] == *slot)
        };
        let kept: Vec<Slot> = in_force.iter().copied().filter(stays).collect();
        if kept.len() == in_force.len() {
            let most = &wanted[..wanted.len().min(Word::MAX_BACKENDS)];
            let spare = self.slots.capacity() / SPARE;
            let Some((part, run)) = self.extend(present, most, spare, true) else {
                return Some(self.beside_word(present));
            };
            self.fill(run, &most[part]);
            return Some(Step::Publish(Some(run), run.len as u16));
        }
        let (skipped, part) = longest_stretch(&in_force, stays);
        let pool = if kept.is_empty() { &wanted } else { &kept };
        let most = pool.len().min(Word::MAX_BACKENDS).min(self.slots.longest() as usize);
        if most > part
            && let Some(run) = self.slots.allocate(most as u32, 0)
        {
            self.fill(run, &pool[..most]);
            return Some(Step::Publish(Some(run), most as u16));
        }
        let Some(held) = present.run.filter(|_| part > 0) else {
            return Some(Step::Publish(None, 0));
        };
        let run = Run { first: held.first + skipped as u32, len: part as u32 };
        // Of this slot only what goes with the rest of the run changes.
        self.fill(Run { len: 1, ..run }, &in_force[skipped..]);
        Some(Step::Publish(Some(run), part as u16))
    }

    /// Takes the tables off so many sets that this much room is free once it has rested.
    fn take_tables(&mut self, len: u32, now: Duration) {
        self.shortage.missing = self.shortage.missing.saturating_add(len);
        while self.slots.resting() < self.shortage.missing {
            let Some((name, scope)) = self.next_table() else { return };
            let Some(port) = self.service_ports.get(&name) else { continue };
            let Some(run) = port.runs[scope as usize].filter(|run| self.has_table(*run)) else {
                continue;
            };
            let entry = self.maps.services().get(codec::index_of(port.id, scope));
            let plain = self.without_table(&entry.unwrap_or_default(), run);
            if let Some(first) = self.maps.slots().get(run.first) {
                // Whoever has seen that there is a table finds it as long as its slots rest.
                self.fill(Run { len: 1, ..run }, &[codec::without_table(first)]);
            }
            if let Some(port) = self.service_ports.get_mut(&name) {
                port.runs[scope as usize] = Some(plain);
            }
            for rest in run.without(plain) {
                self.slots.free(rest, now);
            }
            self.shortage.problems.push(problems::no_table(&name));
        }
    }

    fn next_table(&mut self) -> Option<(ServicePortId, Scope)> {
        if self.shortage.tables.is_none() {
            let with_table = |(name, port): (&ServicePortId, &ServicePort)| {
                let scopes = [Scope::Cluster, Scope::Local].into_iter();
                let runs = scopes.filter_map(|scope| Some((scope, port.runs[scope as usize]?)));
                let runs = runs.filter(|(_, run)| self.has_table(*run));
                runs.map(|(scope, _)| (name.clone(), scope)).collect::<Vec<_>>()
            };
            self.shortage.tables = Some(self.service_ports.iter().flat_map(with_table).collect());
        }
        self.shortage.tables.as_mut()?.pop()
    }

    /// The backends that a set gives out now.
    fn backends_in_force(&self, present: &Present<'_>) -> Vec<Slot> {
        let (Some(entry), Some(run)) = (present.entry, present.run) else { return Vec::new() };
        let slots = (run.first..).take(usize::from(codec::word_of(&entry).count));
        slots.filter_map(|number| self.maps.slots().get(number)).map(codec::inner_slot).collect()
    }

    fn has_table(&self, run: Run) -> bool {
        let first = self.maps.slots().get(run.first);
        first.is_some_and(|first| first.flags & slot_flags::TABLE != 0)
    }

    /// The run that an entry leads to, but for its table.
    fn without_table(&self, entry: &Service, run: Run) -> Run {
        let first = self.maps.slots().get(run.first);
        let first = first.map(codec::without_table);
        Run { len: codec::run_len(codec::word_of(entry), first).min(run.len), ..run }
    }

    /// Writes the slots of a run that differ.
    fn fill(&self, run: Run, slots: &[Slot]) {
        for (number, slot) in (run.first..).zip(slots).take(run.len as usize) {
            if self.maps.slots().get(number) != Some(*slot) {
                let stored = self.maps.slots().write(number, slot);
                debug_assert!(stored, "runs are below the capacity of SLOTS");
            }
        }
    }
}

/// The longest part of `slots` that stays as a whole: how many are before it, and its length.
fn longest_stretch(slots: &[Slot], stays: impl Fn(&Slot) -> bool) -> (usize, usize) {
    let (mut best, mut length) = ((0, 0), 0);
    for (i, slot) in slots.iter().enumerate() {
        length = if stays(slot) { length + 1 } else { 0 };
        if length > best.1 {
            best = (i + 1 - length, length);
        }
    }
    best
}
