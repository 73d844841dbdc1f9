//! Puts the numbers of open connections right, by which the programs pick the least loaded backend.
//!
//! The programs count flows as they open and end. They miss some: flows that are replaced, that end on
//! two CPUs at once. So the flow table is counted at each sweep. While traffic
//! goes on the two never agree exactly, so only what is wrong twice in a row, in the same direction,
//! is corrected. Sockets are counted by the kernel's own calls, without loss; numbers that stay zero
//! are forgotten.

use std::{collections::HashMap, io};

use kproxy_common::load::{LoadKey, counted};

use crate::dataplane::{kernel::hash, maps::Loads};

/// Open connections by backend, as the flow table has them.
pub(super) type OpenConnections = HashMap<LoadKey, i64>;

/// What the sweep before this one has found.
#[derive(Debug, Default)]
pub(super) struct Recount {
    /// By how much each number was wrong; 0: it was zero, and rightly so.
    before: HashMap<LoadKey, i64>,
}

/// What is to be done with a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Add(LoadKey, i64),
    Forget(LoadKey),
}

impl Recount {
    /// Corrects the map, given the open flows of the table.
    ///
    /// # Errors
    /// The map could not be read. A number that cannot be changed is tried again.
    pub(super) fn correct(&mut self, loads: &mut Loads, open: &OpenConnections) -> io::Result<()> {
        for step in self.steps(&hash::read(loads)?, open) {
            let _again_next_time = match step {
                // Read once more: programs have gone on counting.
                Step::Add(key, change) => {
                    let now = loads.get(&key, 0).unwrap_or(0);
                    loads.insert(key, now + change, 0)
                }
                Step::Forget(key) => loads.remove(&key),
            };
        }
        Ok(())
    }

    /// Pure: all facts come from the arguments and the call before.
    fn steps(&mut self, counts: &[(LoadKey, i64)], open: &OpenConnections) -> Vec<Step> {
        let mut found: HashMap<LoadKey, i64> = HashMap::new();
        for (key, count) in counts {
            let wrong = match key.path {
                counted::FLOWS => open.get(key).copied().unwrap_or(0) - count,
                // Below zero: it was forgotten while a socket of it was open.
                _ => (-count).max(0),
            };
            if wrong != 0 || *count == 0 {
                found.insert(*key, wrong);
            }
        }
        let counted: HashMap<LoadKey, i64> = counts.iter().copied().collect();
        for (key, flows) in open.iter().filter(|(key, _)| !counted.contains_key(key)) {
            found.insert(*key, *flows);
        }
        let mut steps = Vec::new();
        for (key, wrong) in &mut found {
            let Some(before) = self.before.get(key) else { continue };
            match correction(*before, *wrong) {
                0 if *wrong == 0 && *before == 0 => steps.push(Step::Forget(*key)),
                0 => {}
                change => {
                    steps.push(Step::Add(*key, change));
                    *wrong -= change;
                }
            }
        }
        // What is right again, and not zero, is no news.
        found.retain(|key, wrong| *wrong != 0 || counted.get(key) == Some(&0));
        self.before = found;
        steps
    }
}

/// Forgets the connections of sockets, which nobody sees close any more.
///
/// # Errors
/// The map could not be read.
pub(super) fn forget_sockets(loads: &mut Loads) -> io::Result<()> {
    for (key, _) in hash::read(loads)? {
        if key.path == counted::SOCKETS {
            let _gone_already = loads.remove(&key);
        }
    }
    Ok(())
}

/// What was wrong twice in a row.
pub(super) fn correction(before: i64, now: i64) -> i64 {
    if before.signum() == now.signum() { now.signum() * before.abs().min(now.abs()) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use kproxy_common::net::Port;

    use super::*;

    fn key(path: u16) -> LoadKey {
        let addr: IpAddr = "10.244.1.5".parse().unwrap();
        LoadKey { addr: addr.into(), port: Port::new(8080), path }
    }

    const FLOWS: u16 = counted::FLOWS;
    const SOCKETS: u16 = counted::SOCKETS;

    /// Steps of sweeps, each with the counted and the true number; `None`: there is no entry.
    fn sweeps(path: u16, seen: &[(Option<i64>, i64)]) -> Vec<Vec<Step>> {
        let mut recount = Recount::default();
        let sweep = |(count, open): &(Option<i64>, i64)| {
            let counts: Vec<_> = count.map(|count| (key(path), count)).into_iter().collect();
            let open = if *open == 0 {
                OpenConnections::new()
            } else {
                OpenConnections::from([(key(path), *open)])
            };
            recount.steps(&counts, &open)
        };
        seen.iter().map(sweep).collect()
    }

    #[test]
    fn what_is_wrong_twice_is_corrected_and_noise_is_not() {
        let add = |change| vec![Step::Add(key(FLOWS), change)];
        for (seen, wanted) in [
            (vec![(Some(5), 5), (Some(7), 7)], vec![vec![], vec![]]),
            // Lost ends: of 4 and 6 too many, 4 are certain.
            (vec![(Some(9), 5), (Some(9), 3)], vec![vec![], add(-4)]),
            (vec![(Some(5), 9), (Some(5), 9), (Some(9), 9)], vec![vec![], add(4), vec![]]),
            // Once more, once less: connections that came while the table was read.
            (vec![(Some(5), 7), (Some(7), 5), (Some(5), 6)], vec![vec![]; 3]),
            // Below zero, and an entry that the full map did not take.
            (vec![(Some(-2), 0), (Some(-2), 0)], vec![vec![], add(2)]),
            (vec![(None, 3), (None, 3)], vec![vec![], add(3)]),
            // The rest of a correction is asked again.
            (vec![(Some(9), 5), (Some(9), 3), (Some(5), 3)], vec![vec![], add(-4), add(-2)]),
        ] {
            assert_eq!(sweeps(FLOWS, &seen), wanted, "{seen:?}");
        }
    }

    #[test]
    fn what_stays_zero_is_forgotten() {
        for path in [FLOWS, SOCKETS] {
            let seen = [(Some(0), 0), (Some(0), 0)];
            assert_eq!(sweeps(path, &seen), [vec![], vec![Step::Forget(key(path))]]);
        }
        let seen = [(Some(0), 0), (Some(1), 1), (Some(0), 0)];
        assert_eq!(sweeps(FLOWS, &seen), vec![vec![]; 3]);
        // Sockets are not in the flow table.
        assert_eq!(sweeps(SOCKETS, &[(Some(3), 0), (Some(3), 0)]), vec![vec![]; 2]);
        let add = vec![Step::Add(key(SOCKETS), 1)];
        assert_eq!(sweeps(SOCKETS, &[(Some(-1), 0), (Some(-1), 0)]), [vec![], add]);
    }
}
