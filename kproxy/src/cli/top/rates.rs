//! Two looks at the maps become rows: what has been counted between them, a second, and what is there now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::dataplane::read::{
    ActiveFlow, BackendRow, CounterRow, DropRow, FrontendRow, Pins, ReadError,
};
use crate::plan::ServicePortId;

/// What the maps hold at one time.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// When, by a clock that only goes forward.
    pub at: Duration,
    /// How long the look took.
    pub took: Duration,
    pub counters: Vec<CounterRow>,
    pub drops: Vec<DropRow>,
    pub flows: Vec<ActiveFlow>,
    pub backends: Vec<BackendRow>,
    pub frontends: Vec<FrontendRow>,
}

impl Sample {
    /// Reads all that it is made of.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn read(pins: &Pins, since: std::time::Instant) -> Result<Self, ReadError> {
        let at = since.elapsed();
        let (counters, drops) = (pins.counters()?, pins.drops()?);
        let (flows, backends, frontends) =
            (pins.active_flows()?, pins.backends()?, pins.frontends()?);
        let took = since.elapsed().saturating_sub(at);
        Ok(Self { at, took, counters, drops, flows, backends, frontends })
    }
}

/// Numbers of a service port, a backend, or all together.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Numbers {
    /// New connections a second.
    pub new: f64,
    /// Open flows.
    pub open: u64,
    /// Packets and calls refused or dropped, a second.
    pub drops: f64,
    /// Connections that the backend refused or did not answer, a second.
    pub failed: f64,
    /// Open flows that the backend has not answered yet.
    pub unanswered: u64,
    /// Packets a second that were translated.
    pub packets: f64,
    /// Bytes a second of them.
    pub bytes: f64,
}

/// A service port.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub service: Option<ServicePortId>,
    /// What is dialled: the first of its frontends.
    pub dialled: Option<SocketAddr>,
    pub numbers: Numbers,
    pub backends: Vec<Backend>,
}

/// A backend. Drops belong to none, and of failures only what waits now is known.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Backend {
    pub at: SocketAddr,
    /// It serves; `false`: it only keeps flows.
    pub serves: bool,
    pub local: bool,
    pub numbers: Numbers,
}

/// All that is shown.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Rates {
    pub rows: Vec<Row>,
    /// Everything together, with what belongs to no Service.
    pub all: Numbers,
    /// How long the last look took.
    pub took: Duration,
}

impl Rates {
    /// What has gone on between two samples.
    pub(crate) fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.saturating_sub(before.at).as_secs_f64().max(0.001);
        let counted = sums(&before.counters);
        let dropped = drops(&before.drops);
        let mut flows = flows(before, now, seconds);
        let mut dialled: HashMap<u32, SocketAddr> = HashMap::new();
        for row in &now.frontends {
            dialled.entry(row.id).or_insert_with(|| SocketAddr::new(row.addr, row.port));
        }
        let mut serving: HashMap<u32, BTreeMap<SocketAddr, bool>> = HashMap::new();
        for row in &now.backends {
            let at = SocketAddr::new(row.addr, row.port);
            serving.entry(row.id).or_default().insert(at, row.local);
        }
        let drops_now = drops(&now.drops);
        let names = now.counters.iter().map(|row| (row.id, row.service.clone()));
        let names: BTreeMap<u32, Option<ServicePortId>> = names.collect();
        let mut rows: Vec<Row> = Vec::with_capacity(names.len());
        for (id, counts) in sums(&now.counters) {
            let known = counted.get(&id).copied().unwrap_or_default();
            let rate = |at: usize| growth(known[at], counts[at]) as f64 / seconds;
            let lost = growth(
                dropped.get(&Some(id)).copied().unwrap_or_default(),
                drops_now.get(&Some(id)).copied().unwrap_or_default(),
            );
            let own = flows.remove(&id).unwrap_or_default();
            let backends = backends(own, serving.remove(&id).unwrap_or_default());
            let sum = |of: fn(&Numbers) -> u64| backends.iter().map(|of_| of(&of_.numbers)).sum();
            rows.push(Row {
                id,
                service: names.get(&id).cloned().flatten(),
                dialled: dialled.get(&id).copied(),
                numbers: Numbers {
                    new: rate(0),
                    packets: rate(1),
                    bytes: rate(2),
                    failed: rate(3),
                    drops: lost as f64 / seconds,
                    open: sum(|of| of.open),
                    unanswered: sum(|of| of.unanswered),
                },
                backends,
            });
        }
        let mut all = rows.iter().fold(Numbers::default(), |all, row| all.plus(&row.numbers));
        let lost = |id: Option<u32>| {
            growth(
                dropped.get(&id).copied().unwrap_or_default(),
                drops_now.get(&id).copied().unwrap_or_default(),
            )
        };
        all.drops = drops_now.keys().map(|id| lost(*id)).sum::<u64>() as f64 / seconds;
        Self { rows, all, took: now.took }
    }
}

impl Numbers {
    fn plus(self, other: &Self) -> Self {
        Self {
            new: self.new + other.new,
            open: self.open + other.open,
            drops: self.drops + other.drops,
            failed: self.failed + other.failed,
            unanswered: self.unanswered + other.unanswered,
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Connections, packets, bytes and failures by service port: those of both sets.
fn sums(rows: &[CounterRow]) -> BTreeMap<u32, [u64; 4]> {
    let mut sums = BTreeMap::<u32, [u64; 4]>::new();
    for row in rows {
        let counts = [row.connections, row.packets, row.bytes, row.failed];
        let sum = sums.entry(row.id).or_default();
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(count));
    }
    sums
}

fn drops(rows: &[DropRow]) -> BTreeMap<Option<u32>, u64> {
    let mut sums = BTreeMap::<Option<u32>, u64>::new();
    for row in rows {
        let sum = sums.entry(row.id).or_default();
        *sum = sum.saturating_add(row.count);
    }
    sums
}

/// By service port and backend: new flows a second, open ones, and those that wait for an answer.
fn flows(
    before: &Sample,
    now: &Sample,
    seconds: f64,
) -> HashMap<u32, BTreeMap<SocketAddr, Numbers>> {
    let known: HashSet<u64> = before.flows.iter().map(|flow| flow.identity).collect();
    let mut by_backend: HashMap<u32, BTreeMap<SocketAddr, Numbers>> = HashMap::new();
    for flow in &now.flows {
        let is_new = !known.contains(&flow.identity);
        if !flow.open && !is_new {
            continue;
        }
        let of = by_backend.entry(flow.id).or_default().entry(flow.backend).or_default();
        of.new += f64::from(u8::from(is_new)) / seconds;
        of.open += u64::from(flow.open);
        of.unanswered += u64::from(flow.unanswered);
    }
    by_backend
}

/// Those that serve, and those that only have flows.
fn backends(
    mut flows: BTreeMap<SocketAddr, Numbers>,
    serving: BTreeMap<SocketAddr, bool>,
) -> Vec<Backend> {
    let serve = serving.into_iter().map(|(at, local)| {
        let numbers = flows.remove(&at).unwrap_or_default();
        Backend { at, serves: true, local, numbers }
    });
    let mut all: Vec<Backend> = serve.collect();
    let rest = flows.into_iter();
    all.extend(rest.map(|(at, numbers)| Backend { at, serves: false, local: false, numbers }));
    all
}

/// By how much a number has grown. One that is less than before belongs to another service port now.
const fn growth(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}
