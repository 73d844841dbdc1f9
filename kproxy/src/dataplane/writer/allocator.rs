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
    used: u32,
}

impl Allocator {
    /// Everything free.
    pub(crate) fn new(capacity: u32) -> Self {
        let mut runs = Self {
            capacity,
            by_first: BTreeMap::new(),
            by_len: BTreeSet::new(),
            resting: VecDeque::new(),
            used: 0,
        };
        if capacity > 0 {
            runs.add_extent(Run { first: 0, len: capacity });
        }
        runs
    }

    /// Numbers in use: resting ones do not count.
    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    /// All numbers.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A run of `len` numbers; `None` when no free extent is that long (or `len` is 0).
    pub(crate) fn allocate(&mut self, len: u32) -> Option<Run> {
        if len == 0 {
            return None;
        }
        let &(extent, first) = self.by_len.range((len, 0)..).next()?;
        self.cut(Run { first, len: extent }, Run { first, len });
        Some(Run { first, len })
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
            self.add_extent(run);
            any = true;
        }
        any
    }

    fn cut(&mut self, extent: Run, run: Run) {
        self.by_first.remove(&extent.first);
        self.by_len.remove(&(extent.len, extent.first));
        for (from, to) in [(extent.first.into(), run.first.into()), (end(run), end(extent))] {
            if from < to {
                self.insert(Run { first: from as u32, len: (to - from) as u32 });
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
        let run = runs.allocate(4).unwrap();
        runs.free(run, Duration::from_secs(10));
        assert_eq!(runs.used(), 0);
        assert!(!runs.reclaim(Duration::from_millis(11_999)));
        assert_eq!(runs.allocate(1), None);
        assert!(runs.reclaim(Duration::from_secs(12)));
        assert_eq!(runs.allocate(4), Some(run));
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
        assert_eq!((runs.used(), runs.allocate(1)), (10, None));
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
                } else if let Some(run) = runs.allocate(len) {
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
                prop_assert_eq!(runs.used(), held.iter().map(|run| run.len).sum::<u32>());
            }
            for run in held.drain(..) {
                runs.free(run, now);
            }
            runs.reclaim(now + GRACE_PERIOD);
            prop_assert_eq!(runs.allocate(CAPACITY), Some(Run { first: 0, len: CAPACITY }));
        }
    }
}
