//! Runs long-lived connections.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};

use anyhow::{Context as _, Result, anyhow};
use parking_lot::{Mutex, MutexGuard};

use crate::agent::client::{Client, describe};
use crate::traffic::{Hold, HoldReport, unspecified};

/// The open connections of an agent.
#[derive(Default)]
pub(crate) struct Holds {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Held>>,
}

struct Held {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    report: Mutex<HoldReport>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, HoldReport> {
        self.report.lock()
    }
}

impl Holds {
    /// Connects, waits for the first answer and goes on in the background.
    pub(crate) fn open(&self, hold: &Hold) -> Result<u64> {
        let from = hold.port.map(|port| unspecified(hold.to.ip(), port));
        let mut client = Client::open(hold.transport, hold.to, from, hold.timeout)
            .with_context(|| format!("connect to {}", hold.to))?;
        let shared = Arc::new(Shared::default());
        // The caller goes on to change things: the connection has to stand before.
        match client.ask(0, 0, hold.timeout) {
            Ok((answer, _)) => count(&mut shared.report(), answer.server),
            Err(_silent) if hold.unanswered => {}
            Err(e) => {
                return Err(e).with_context(|| format!("get a first answer from {}", hold.to));
            }
        }
        let hold = hold.clone();
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(client, &hold, &shared))
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Held { shared, thread });
        Ok(number)
    }

    /// What a connection has seen so far; ends it if asked.
    pub(crate) fn report(&self, number: u64, stop: bool) -> Result<HoldReport> {
        if stop {
            let held = self.lock().remove(&number).context("no such connection")?;
            held.shared.stop.store(true, Ordering::Relaxed);
            held.thread.join().map_err(|_panic| anyhow!("the connection's thread panicked"))?;
            let report = held.shared.report().clone();
            return Ok(report);
        }
        let open = self.lock();
        let report = open.get(&number).context("no such connection")?.shared.report().clone();
        Ok(report)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.open.lock()
    }
}

fn count(report: &mut HoldReport, server: String) {
    report.sent += 1;
    report.answered += 1;
    *report.servers.entry(server).or_default() += 1;
}

fn work(mut client: Client, hold: &Hold, shared: &Shared) {
    for token in 1.. {
        sleep(hold.pause);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let result = client.ask(token, 0, hold.timeout);
        let mut report = shared.report();
        match result {
            Ok((answer, _)) => {
                count(&mut report, answer.server);
                continue;
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                report.sent += 1;
                report.lost += 1;
            }
            Err(e) if matches!(client, Client::Stream(_)) => {
                report.sent += 1;
                report.broken = Some(describe(&e));
                return;
            }
            Err(e) => {
                report.sent += 1;
                *report.errors.entry(describe(&e)).or_default() += 1;
            }
        }
    }
}
