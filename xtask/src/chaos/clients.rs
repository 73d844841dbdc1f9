//! Honest clients: they connect, ask once and close, and go on with the next connection.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use kproxy_lab::{Attempt, Place, Probe, Transport, Verdict};

use crate::stats;

/// Clients at work at the same time, where nothing else is said.
const CLIENTS: usize = 4;
/// Pause between an answer and the next connection.
const PAUSE: Duration = Duration::from_millis(10);

/// Failures that are told of.
const FAILURES: usize = 5;

/// What honest clients have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Requests.
    pub(super) attempted: usize,
    /// Those that were not answered.
    pub(super) failed: usize,
    /// How the first of those ended.
    pub(super) failures: Vec<String>,
    /// Microseconds until each connection stood (UDP: until the answer).
    times: Vec<f64>,
}

impl Seen {
    fn add(&mut self, transport: Transport, attempt: &Attempt) {
        self.attempted += 1;
        if !matches!(attempt.verdict, Verdict::Answered(_)) {
            self.failed += 1;
            self.failures.push(how(transport, attempt));
        }
        let time = match transport {
            Transport::Tcp => attempt.opened,
            _ => matches!(attempt.verdict, Verdict::Answered(_)).then_some(attempt.elapsed),
        };
        self.times.extend(time.map(|time| time.as_secs_f64() * 1e6));
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.attempted += other.attempted;
        self.failed += other.failed;
        let room = FAILURES.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
        self.times.extend(other.times);
        self
    }

    /// Median and 99th percentile; `None` when nobody got through.
    pub(super) fn times(&self) -> Option<(f64, f64)> {
        Some((stats::median(&self.times)?, stats::quantile(&self.times, 0.99)?))
    }
}

/// How a request that was not answered ended.
fn how(transport: Transport, attempt: &Attempt) -> String {
    let Attempt { verdict, local, opened, elapsed, .. } = attempt;
    let from = local.map_or_else(String::new, |local| format!(" from port {}", local.port()));
    let stage = match opened {
        Some(time) => format!("connected after {time:.1?}"),
        None => "never connected".to_owned(),
    };
    format!("{transport:?} {verdict:?}{from} after {elapsed:.1?}, {stage}")
}

/// Clients that go on as long as `work` does; what they saw, and what came of the work.
pub(super) fn during<T>(
    place: &Place,
    probe: &Probe,
    work: impl FnOnce() -> Result<T>,
) -> Result<(Seen, T)> {
    let is_over = AtomicBool::new(false);
    let client = || {
        let mut seen = Seen::default();
        while !is_over.load(Ordering::Relaxed) {
            seen = seen.and(ask(place, probe)?);
            sleep(PAUSE);
        }
        Ok(seen)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        Ok((sum(clients)?, result?))
    })
}

/// The clients when nothing else happens.
pub(super) fn quiet(place: &Place, probe: &Probe, time: Duration) -> Result<Seen> {
    let wait = || {
        sleep(time);
        Ok(())
    };
    during(place, probe, wait).map(|(seen, ())| seen)
}

/// So many clients at once, one request each.
pub(super) fn at_once(place: &Place, probe: &Probe, clients: usize) -> Result<Seen> {
    thread::scope(|scope| {
        let clients = (0..clients).map(|_| scope.spawn(|| ask(place, probe))).collect();
        sum(clients)
    })
}

/// So many requests one after the other, without a pause; fewer when the time is over first.
pub(super) fn one_by_one(
    place: &Place,
    probe: &Probe,
    requests: usize,
    time: Duration,
) -> Result<Seen> {
    let start = Instant::now();
    let mut seen = Seen::default();
    while seen.attempted < requests && start.elapsed() < time {
        seen = seen.and(ask(place, probe)?);
    }
    Ok(seen)
}

fn ask(place: &Place, probe: &Probe) -> Result<Seen> {
    let outcome = place.probe(probe.clone())?;
    let mut seen = Seen::default();
    outcome.attempts.iter().for_each(|attempt| seen.add(probe.transport(), attempt));
    Ok(seen)
}

fn sum(clients: Vec<thread::ScopedJoinHandle<'_, Result<Seen>>>) -> Result<Seen> {
    clients.into_iter().try_fold(Seen::default(), |sum, client| {
        Ok(sum.and(client.join().map_err(|_panic| anyhow!("a client panicked"))??))
    })
}
