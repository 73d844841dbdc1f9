//! What the programs count, by service port and by reason.
//!
//! A cluster may have tens of thousands of service ports, and every node would tell of each. So only
//! those that have had traffic on this node are told, and of those at most [`MOST_SERVICES`]: the ones
//! that were there first. How many are left out is told, too. A sum over all is always there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kproxy_common::drop_reason::DropReason;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, Result};

use super::series::{IP_FAMILY, KPROXY, ip_family, register};
use crate::dataplane::read::{CounterRow, DropRow};
use crate::plan::ServicePortId;

/// Service ports with numbers of their own.
pub(super) const MOST_SERVICES: usize = 1000;

/// Labels of a service port.
const SERVICE: [&str; 5] = ["namespace", "service", "port", "protocol", IP_FAMILY];
/// Label of what was counted with a reason that this version does not know.
const UNKNOWN: &str = "unknown";

/// Numbers of the programs.
#[derive(Debug)]
pub(crate) struct Traffic {
    all: Counts<IntCounter>,
    drops: IntCounterVec,
    by_service: Counts<IntCounterVec>,
    drops_by_service: IntCounterVec,
    left_out: IntGauge,
    before: Mutex<Before>,
}

/// What the sums hold already. A service port that goes takes its numbers with it, a sum keeps them.
#[derive(Debug, Default)]
struct Before {
    counts: BTreeMap<u32, [u64; 4]>,
    drops: BTreeMap<(Option<u32>, &'static str), u64>,
}

/// What is counted for whatever passes.
#[derive(Debug)]
struct Counts<T> {
    connections: T,
    packets: T,
    bytes: T,
    failed: T,
}

/// What one service port has seen.
#[derive(Debug, Default)]
struct Seen {
    service: Option<ServicePortId>,
    counts: [u64; 4],
    drops: BTreeMap<&'static str, u64>,
}

impl Traffic {
    /// All at zero, in `registry`.
    ///
    /// # Errors
    /// A name is taken or is none.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let connections = "Connections that were given a backend";
        let packets = "Packets translated on the packet path, both directions";
        let bytes = "Bytes of packets translated on the packet path, headers included";
        let failed = "Connections on the packet path that their backend refused or did not answer";
        let drops = "Packets and calls that were refused or dropped";
        let of = |help: &str| format!("{help}, by service port");
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(KPROXY);
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(opts(name, help))?;
            register(registry, &counter).map(|()| counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(opts(name, help), labels)?;
            register(registry, &counters).map(|()| counters)
        };
        let left_out = IntGauge::with_opts(opts(
            "services_left_out",
            "Service ports that have had traffic and no numbers of their own here, as there are too \
             many; kproxy dump counters shows them",
        ))?;
        register(registry, &left_out)?;
        let with_reason: Vec<&str> = SERVICE.into_iter().chain(["reason"]).collect();
        let drops_by_reason = counters("drops_total", &format!("{drops}, by reason"), &["reason"])?;
        for reason in DropReason::ALL {
            drops_by_reason.with_label_values(&[reason.name()]);
        }
        Ok(Self {
            all: Counts {
                connections: counter("connections_total", connections)?,
                packets: counter("packets_total", packets)?,
                bytes: counter("bytes_total", bytes)?,
                failed: counter("failed_connections_total", failed)?,
            },
            drops: drops_by_reason,
            by_service: Counts {
                connections: counters("service_connections_total", &of(connections), &SERVICE)?,
                packets: counters("service_packets_total", &of(packets), &SERVICE)?,
                bytes: counters("service_bytes_total", &of(bytes), &SERVICE)?,
                failed: counters("service_failed_connections_total", &of(failed), &SERVICE)?,
            },
            drops_by_service: counters(
                "service_drops_total",
                &format!("{} and reason", of(drops)),
                &with_reason,
            )?,
            left_out,
            before: Mutex::default(),
        })
    }

    /// Takes what the maps hold now.
    pub(crate) fn set(&self, counters: Vec<CounterRow>, drops: Vec<DropRow>) {
        let mut by_port = BTreeMap::<u32, Seen>::new();
        let mut by_reason = BTreeMap::<(Option<u32>, &'static str), u64>::new();
        for row in counters {
            let seen = by_port.entry(row.id).or_default();
            seen.service = row.service;
            let counts = [row.connections, row.packets, row.bytes, row.failed];
            seen.counts.iter_mut().zip(counts).for_each(|(sum, count)| add(sum, count));
        }
        for row in drops {
            let reason = row.reason.map_or(UNKNOWN, DropReason::name);
            add(by_reason.entry((row.id, reason)).or_default(), row.count);
            if let Some(id) = row.id {
                let seen = by_port.entry(id).or_default();
                seen.service = seen.service.take().or(row.service);
                add(seen.drops.entry(reason).or_default(), row.count);
            }
        }
        self.add_to_sums(&by_port, by_reason);
        self.set_services(by_port);
    }

    fn add_to_sums(
        &self,
        by_port: &BTreeMap<u32, Seen>,
        by_reason: BTreeMap<(Option<u32>, &'static str), u64>,
    ) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, seen) in by_port {
            let known = before.counts.get(id).copied().unwrap_or_default();
            for ((sum, now), known) in self.all.each().into_iter().zip(seen.counts).zip(known) {
                sum.inc_by(growth(known, now));
            }
        }
        for (key, now) in &by_reason {
            let known = before.drops.get(key).copied().unwrap_or_default();
            self.drops.with_label_values(&[key.1]).inc_by(growth(known, *now));
        }
        before.counts = by_port.iter().map(|(id, seen)| (*id, seen.counts)).collect();
        before.drops = by_reason;
    }

    /// In the order of their numbers, which service ports keep as long as they are there.
    fn set_services(&self, by_port: BTreeMap<u32, Seen>) {
        let vecs = self.by_service.each();
        vecs.iter().for_each(|vec| vec.reset());
        self.drops_by_service.reset();
        let mut shown = 0;
        let mut left_out = 0;
        for Seen { service, counts, drops } in by_port.into_values() {
            let is_idle = counts.iter().chain(drops.values()).all(|count| *count == 0);
            let Some(id) = service.filter(|_| !is_idle) else { continue };
            if shown >= MOST_SERVICES {
                left_out += 1;
                continue;
            }
            let family = ip_family(id.family);
            let labels = [&*id.namespace, &*id.name, &*id.port, id.protocol.name(), family];
            for (vec, count) in vecs.iter().zip(counts) {
                vec.with_label_values(&labels).inc_by(count);
            }
            for (reason, count) in drops {
                let labels: Vec<&str> = labels.into_iter().chain([reason]).collect();
                self.drops_by_service.with_label_values(&labels).inc_by(count);
            }
            shown += 1;
        }
        self.left_out.set(left_out);
    }
}

impl<T> Counts<T> {
    /// In the order of [`Seen::counts`].
    const fn each(&self) -> [&T; 4] {
        [&self.connections, &self.packets, &self.bytes, &self.failed]
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// By how much a number has grown. One that is less than before belongs to another service port now.
const fn growth(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}
