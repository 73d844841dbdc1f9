//! Clients that ask without a pause, and notice every request that was not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kproxy_lab::{Place, Probe, Transport, Verdict};

use crate::rollout::PATIENCE;

/// Requests that a client makes in one go.
const BATCH: u32 = 25;

/// A client: a new connection (or UDP socket) for every request.
pub(crate) struct Client {
    from: Arc<Place>,
    to: SocketAddr,
    transport: Transport,
    seen: Mutex<Seen>,
}

/// What a client has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    batches: u64,
    /// Names of the servers, with their answers.
    pub(crate) servers: BTreeMap<String, u64>,
    /// Addresses that the servers saw.
    pub(crate) clients: BTreeSet<IpAddr>,
    /// Requests without an answer.
    pub(crate) lost: Vec<String>,
}

impl Client {
    pub(crate) fn new(from: Arc<Place>, transport: Transport, to: SocketAddr) -> Self {
        Self { from, to, transport, seen: Mutex::default() }
    }

    pub(crate) fn tcp(from: Arc<Place>, to: SocketAddr) -> Self {
        Self::new(from, Transport::Tcp, to)
    }

    pub(crate) fn udp(from: Arc<Place>, to: SocketAddr) -> Self {
        Self::new(from, Transport::UdpConnected, to)
    }

    pub(crate) fn from(&self) -> &Place {
        &self.from
    }

    pub(crate) const fn to(&self) -> SocketAddr {
        self.to
    }

    pub(crate) const fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking for Client {
    fn batch(&self) {
        let outcome = self.from.probe(Probe::new(self.transport, self.to).count(BATCH)).unwrap();
        let mut seen = self.seen();
        seen.batches += 1;
        for attempt in outcome.attempts {
            match attempt.verdict {
                Verdict::Answered(answer) => {
                    seen.clients.insert(answer.client.ip());
                    *seen.servers.entry(answer.server).or_default() += 1;
                }
                verdict => {
                    let local = attempt.local.map(|local| format!(" from {local}"));
                    seen.lost.push(format!("{verdict:?}{}", local.unwrap_or_default()));
                }
            }
        }
    }

    fn batches(&self) -> u64 {
        self.seen().batches
    }

    fn lost(&self) -> Vec<String> {
        self.seen().lost.clone()
    }

    fn name(&self) -> String {
        format!("{} {:?} {}", self.from.name(), self.transport, self.to)
    }
}

/// Someone who asks in batches.
pub(crate) trait Asking: Sync {
    /// Asks a bounded number of times.
    fn batch(&self);
    /// Batches so far.
    fn batches(&self) -> u64;
    /// What was not answered.
    fn lost(&self) -> Vec<String>;
    /// Who asks whom.
    fn name(&self) -> String;
}

/// Clients at work.
pub(crate) struct Clients<'a>(Vec<&'a dyn Asking>);

impl Clients<'_> {
    /// Waits until each has made a whole batch of requests from now on: what it did before is
    /// over, and what was changed has been used.
    pub(crate) fn go_on(&self) {
        let before: Vec<u64> = self.0.iter().map(|client| client.batches()).collect();
        let start = Instant::now();
        for (client, before) in self.0.iter().zip(before) {
            while client.batches() < before + 2 {
                assert!(start.elapsed() < PATIENCE, "{}: came to a stop", client.name());
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Lets all clients ask until `work` is done, then fails if a single request was not answered.
pub(crate) fn while_asked(clients: &[impl Asking], work: impl FnOnce(&Clients<'_>)) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also when the work fails: the threads would go on for ever.
        let _stop = Stop(&stop);
        for client in clients {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.batch();
                }
            });
        }
        let clients = Clients(clients.iter().map(|client| client as &dyn Asking).collect());
        clients.go_on();
        work(&clients);
    });
    for client in clients {
        let lost = client.lost();
        let some = &lost[..lost.len().min(10)];
        assert!(lost.is_empty(), "{}: {} lost: {some:?}", client.name(), lost.len());
    }
}
