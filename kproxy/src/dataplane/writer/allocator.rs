//! Gives out contiguous runs of numbers: slots of a backend set, or one number at a time as
//! service port ids.
//!
//! What is given back rests before it is given out again: a program that has read the old word may
//! still be on its way to the old slots. Pure: the time is passed in.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// How long a run rests before it is given out again. A BPF program runs for microseconds and cannot sleep; two seconds leave
/// room for a virtual CPU that is not scheduled.
pub(crate) const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// A contiguous run, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Run {
    /// First number.
    pub(crate) first: u32,
    /// How many.
    pub(crate) len: u32,
}

/// The allocator over `0..capacity`. Best fit, lowest first, so that memory that was never used
/// stays untouched.
#[derive(Debug)]
pub(crate) struct Allocator {
    capacity: u32,
    /// Free extents: first → length. No two touch each other.
    by_first: BTreeMap<u32, u32>,
    /// The same as (length, first).
    by_len: BTreeSet<(u32, u32)>,
    /// Given back at a time, oldest first.
    resting: VecDeque<(Duration, Run)>,
    /// Numbers that rest.
    resting_len: u32,
    used: u32,
}

impl Run {
    /// What of this run is not in `other`: what is before it and what is behind it.
    pub(crate) fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let (from, to) = (u64::from(self.first), end(self));
        let before = (from, to.min(u64::from(other.first)));
        let behind = (from.max(end(other)), to);
        let parts = if other.len == 0 { [(from, to), (to, to)] } else { [before, behind] };
        let part = |(from, to)| (from < to).then(|| between(from, to));
        parts.into_iter().filter_map(part)
    }
}

impl Allocator {
    /// Everything free.
    pub(crate) fn new(capacity: u32) -> Self {
        let mut runs = Self {
            capacity,
            by_first: BTreeMap::new(),
            by_len: BTreeSet::new(),
            resting: VecDeque::new(),
            resting_len: 0,
            used: 0,
        };
        if capacity > 0 {
            runs.add_extent(Run { first: 0, len: capacity });
        }
        runs
    }

    /// As large, everything free but for what rests.
    pub(crate) fn with_what_rests(&mut self) -> Self {
        let mut runs = Self::new(self.capacity);
        for (since, run) in self.resting.drain(..) {
            if runs.claim(run) {
                runs.free(run, since);
            }
        }
        runs
    }

    /// Adds the numbers up to a larger capacity.
    pub(crate) fn grow(&mut self, capacity: u32) {
        if let Some(more) = capacity.checked_sub(self.capacity).filter(|more| *more > 0) {
            self.add_extent(Run { first: self.capacity, len: more });
            self.capacity = capacity;
        }
    }

    /// Numbers in use: resting ones do not count.
    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    /// All numbers.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Numbers that were given back and rest.
    pub(crate) const fn resting(&self) -> u32 {
        self.resting_len
    }

    /// Length of the longest run that is free.
    pub(crate) fn longest(&self) -> u32 {
        self.by_len.last().map_or(0, |(len, _)| *len)
    }

    /// Whether `len` numbers more leave `spare` free ones.
    pub(crate) fn leaves(&self, len: u32, spare: u32) -> bool {
        let free = self.capacity - self.used - self.resting_len;
        u64::from(free) >= u64::from(len) + u64::from(spare)
    }

    /// Whether [`Self::allocate`] has such a run.
    pub(crate) fn has_room(&self, len: u32, spare: u32) -> bool {
        self.leaves(len, spare) && len <= self.longest()
    }

    /// A run of `len` numbers that leaves `spare` free ones; `None` when no free extent is that long
    /// (or `len` is 0).
    pub(crate) fn allocate(&mut self, len: u32, spare: u32) -> Option<Run> {
        if len == 0 || !self.leaves(len, spare) {
            return None;
        }
        let &(extent, first) = self.by_len.range((len, 0)..).next()?;
        self.cut(Run { first, len: extent }, Run { first, len });
        Some(Run { first, len })
    }

    /// How many numbers are free right before a run that is in use, and right behind it.
    pub(crate) fn free_beside(&self, run: Run) -> (u32, u32) {
        let before = self.by_first.range(..run.first).next_back();
        let before = before.filter(|(first, len)| **first + **len == run.first);
        let behind = u32::try_from(end(run)).ok().and_then(|next| self.by_first.get(&next));
        (before.map_or(0, |(_, len)| *len), behind.copied().unwrap_or(0))
    }

    /// Takes this very run, which a restarted daemon has found in use. Whether it was free.
    pub(crate) fn claim(&mut self, run: Run) -> bool {
        let Some((&first, &len)) = self.by_first.range(..=run.first).next_back() else {
            return false;
        };
        let extent = Run { first, len };
        if run.len == 0 || end(run) > end(extent) {
            return false;
        }
        self.cut(extent, run);
        true
    }

    /// Gives a run back; it is free again after [`GRACE_PERIOD`].
    pub(crate) fn free(&mut self, run: Run, now: Duration) {
        self.used -= run.len;
        self.resting_len += run.len;
        self.resting.push_back((now, run));
    }

    /// Gives a run back that no reader can have seen.
    pub(crate) fn free_unseen(&mut self, run: Run) {
        self.used -= run.len;
        self.add_extent(run);
    }

    /// Frees the runs that have rested. Whether there were any.
    pub(crate) fn reclaim(&mut self, now: Duration) -> bool {
        let mut any = false;
        while let Some((since, run)) = self.resting.front().copied() {
            if now.saturating_sub(since) < GRACE_PERIOD {
                break;
            }
            self.resting.pop_front();
            self.resting_len -= run.len;
            self.add_extent(run);
            any = true;
        }
        any
    }

    /// How long until some of what rests is free; `None`: nothing rests.
    pub(crate) fn next_room(&self, now: Duration) -> Option<Duration> {
        let (since, _) = self.resting.front()?;
        Some((*since + GRACE_PERIOD).saturating_sub(now))
    }

    fn cut(&mut self, extent: Run, run: Run) {
        self.by_first.remove(&extent.first);
        self.by_len.remove(&(extent.len, extent.first));
        for (from, to) in [(extent.first.into(), run.first.into()), (end(run), end(extent))] {
            if from < to {
                self.insert(between(from, to));
            }
        }
        self.used += run.len;
    }

    fn add_extent(&mut self, mut run: Run) {
        if let Some((&first, &len)) = self.by_first.range(..run.first).next_back()
            && end(Run { first, len }) == u64::from(run.first)
        {
            self.remove(Run { first, len });
            run = Run { first, len: len + run.len };
        }
        if let Ok(next) = u32::try_from(end(run))
            && let Some(&len) = self.by_first.get(&next)
        {
            self.remove(Run { first: next, len });
            run.len += len;
        }
        self.insert(run);
    }

    fn insert(&mut self, run: Run) {
        self.by_first.insert(run.first, run.len);
        self.by_len.insert((run.len, run.first));
    }

    fn remove(&mut self, run: Run) {
        self.by_first.remove(&run.first);
        self.by_len.remove(&(run.len, run.first));
    }
}

/// The numbers `from..to`, which fit.
const fn between(from: u64, to: u64) -> Run {
    Run { first: from as u32, len: (to - from) as u32 }
}

fn end(run: Run) -> u64 {
    u64::from(run.first) + u64::from(run.len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_rests_before_it_is_given_out_again() {
        let mut runs = Allocator::new(4);
        let run = runs.allocate(4, 0).unwrap();
        runs.free(run, Duration::from_secs(10));
        assert_eq!(runs.used(), 0);
        assert!(!runs.reclaim(Duration::from_millis(11_999)));
        assert_eq!(runs.allocate(1, 0), None);
        assert_eq!(runs.next_room(Duration::from_secs(11)), Some(Duration::from_secs(1)));
        assert!(runs.reclaim(Duration::from_secs(12)));
        assert_eq!(runs.next_room(Duration::from_secs(12)), None);
        assert_eq!(runs.allocate(4, 0), Some(run));
    }

    #[test]
    fn claims_refuse_what_is_taken_or_outside() {
        let mut runs = Allocator::new(10);
        assert!(runs.claim(Run { first: 3, len: 4 }));
        for (first, len) in [(6, 1), (0, 4), (2, 2), (9, 2), (10, 1), (u32::MAX, u32::MAX), (0, 0)]
        {
            assert!(!runs.claim(Run { first, len }), "{first}+{len}");
        }
        assert!(runs.claim(Run { first: 7, len: 3 }) && runs.claim(Run { first: 0, len: 3 }));
        assert_eq!((runs.used(), runs.allocate(1, 0)), (10, None));
    }

    #[test]
    fn what_is_spared_counts_all_that_is_free() {
        let mut runs = Allocator::new(10);
        assert_eq!(runs.allocate(8, 3), None);
        let run = runs.allocate(7, 3).unwrap();
        assert_eq!((runs.has_room(1, 3), runs.has_room(3, 0), runs.longest()), (false, true, 3));
        runs.free(run, Duration::ZERO);
        assert!(!runs.leaves(1, 3), "what rests is not free");
        runs.reclaim(GRACE_PERIOD);
        assert!(runs.leaves(7, 3) && !runs.leaves(u32::MAX, u32::MAX));
    }

    #[test]
    fn what_is_added_joins_what_is_free_at_the_end() {
        let mut runs = Allocator::new(4);
        let run = runs.allocate(3, 0).unwrap();
        runs.grow(4);
        runs.grow(2);
        assert_eq!((runs.capacity(), runs.longest()), (4, 1));
        runs.grow(10);
        assert_eq!((runs.capacity(), runs.longest(), runs.used()), (10, 7, 3));
        runs.free(run, Duration::ZERO);
        runs.reclaim(GRACE_PERIOD);
        assert_eq!(runs.allocate(10, 0), Some(Run { first: 0, len: 10 }));
    }

    #[test]
    fn what_is_free_beside_a_run() {
        let mut runs = Allocator::new(10);
        for (first, len) in [(3, 2), (8, 2)] {
            assert!(runs.claim(Run { first, len }));
        }
        assert_eq!(runs.free_beside(Run { first: 3, len: 2 }), (3, 3));
        assert_eq!(runs.free_beside(Run { first: 8, len: 2 }), (3, 0));
        assert!(runs.claim(Run { first: 0, len: 2 }) && runs.claim(Run { first: 5, len: 1 }));
        assert_eq!(runs.free_beside(Run { first: 3, len: 2 }), (1, 0));
        assert_eq!(runs.free_beside(Run { first: 0, len: 2 }), (0, 1));
    }

    #[test]
    fn what_another_run_leaves_of_a_run() {
        let run = |first, len| Run { first, len };
        for (one, other, parts) in [
            (run(2, 6), run(4, 2), vec![run(2, 2), run(6, 2)]),
            (run(2, 6), run(2, 1), vec![run(3, 5)]),
            (run(2, 6), run(7, 9), vec![run(2, 5)]),
            (run(2, 6), run(0, 9), vec![]),
            (run(2, 6), run(8, 9), vec![run(2, 6)]),
            (run(2, 6), run(0, 2), vec![run(2, 6)]),
            (run(2, 6), run(4, 0), vec![run(2, 6)]),
        ] {
            assert_eq!(one.without(other).collect::<Vec<_>>(), parts, "{one:?} {other:?}");
        }
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_nothing_is_lost(
            steps in prop::collection::vec((0u32..9, 0usize..8, 0u64..1500), 1..200),
        ) {
            const CAPACITY: u32 = 64;
            let mut runs = Allocator::new(CAPACITY);
            let mut held: Vec<Run> = Vec::new();
            let mut resting: Vec<(Duration, Run)> = Vec::new();
            let mut now = Duration::ZERO;
            for (len, which, pause) in steps {
                now += Duration::from_millis(pause);
                runs.reclaim(now);
                resting.retain(|(since, _)| now - *since < GRACE_PERIOD);
                if len == 0 {
                    if which < held.len() {
                        let run = held.swap_remove(which);
                        runs.free(run, now);
                        resting.push((now, run));
                    }
                } else if let Some(run) = runs.allocate(len, 0) {
                    prop_assert_eq!(run.len, len);
                    held.push(run);
                } else {
                    // Refused: indeed no gap is that long.
                    let mut taken: Vec<Run> = held.clone();
                    taken.extend(resting.iter().map(|(_, run)| *run));
                    taken.sort();
                    taken.push(Run { first: CAPACITY, len: 0 });
                    let mut at = 0;
                    for run in taken {
                        prop_assert!(run.first - at < len);
                        at = run.first + run.len;
                    }
                }
                let mut taken: Vec<Run> = held.clone();
                taken.extend(resting.iter().map(|(_, run)| *run));
                taken.sort();
                for pair in taken.windows(2) {
                    prop_assert!(end(pair[0]) <= u64::from(pair[1].first));
                }
                let rests = resting.iter().map(|(_, run)| run.len).sum::<u32>();
                prop_assert_eq!(runs.resting(), rests);
                prop_assert_eq!(runs.used(), held.iter().map(|run| run.len).sum::<u32>());
            }
            for run in held.drain(..) {
                runs.free(run, now);
            }
            runs.reclaim(now + GRACE_PERIOD);
            prop_assert_eq!(runs.allocate(CAPACITY, 0), Some(Run { first: 0, len: CAPACITY }));
        }
    }
}
