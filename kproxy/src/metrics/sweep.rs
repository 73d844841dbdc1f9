//! Numbers of the sweeper, kproxy's counterpart of kube-proxy's clean-up of conntrack.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use super::series::{FAMILIES, IP_FAMILY, KPROXY, KUBE_PROXY, durations, ip_family, register};
use crate::dataplane::{SweepReport, Usage};
use kproxy_common::abi::map;

/// Numbers of the sweeper. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    sweeps: [Histogram; 2],
    left: [IntCounter; 2],
    swept: IntCounter,
    sockets: IntCounter,
    entries: IntGaugeVec,
    capacity: IntGaugeVec,
    limit: IntGaugeVec,
    flows: [IntGauge; 2],
    ports: IntGauge,
    ports_used: [IntGauge; 2],
}

/// Label of connections that give way to no other, and of those that do.
const ASSURED: &str = "assured";

impl Sweep {
    /// All at zero, in `registry`.
    ///
    /// # Errors
    /// A name is taken or is none.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let sweeps = HistogramOpts::new(
            "conntrack_reconciler_sync_duration_seconds",
            "How long a sweep of kproxy's own flow table took, in seconds; one sweep serves both \
             families",
        );
        let sweeps =
            HistogramVec::new(sweeps.namespace(KUBE_PROXY).buckets(durations()?), &[IP_FAMILY])?;
        let left = Opts::new(
            "conntrack_reconciler_deleted_entries_total",
            "UDP flows of kproxy's own flow table that have lost their endpoint, which serves no more, \
             as sweeps find them",
        );
        let left = IntCounterVec::new(left.namespace(KUBE_PROXY), &[IP_FAMILY])?;
        let own = |name: &str, help: &str| Opts::new(name, help).namespace(KPROXY);
        let swept = own("flow_entries_swept_total", "Entries of the flow table that were removed");
        let swept = IntCounter::with_opts(swept)?;
        let sockets = own(
            "udp_sockets_closed_total",
            "UDP sockets that were closed because they were connected to an endpoint that has gone",
        );
        let sockets = IntCounter::with_opts(sockets)?;
        let entries = own("map_entries", "Entries in use of a kernel map that can fill up");
        let entries = IntGaugeVec::new(entries, &["map"])?;
        let capacity = own("map_max_entries", "Entries that fit into a kernel map");
        let capacity = IntGaugeVec::new(capacity, &["map"])?;
        let limit =
            own("map_limit_entries", "Entries that a kernel map grows to at most when it is full");
        let limit = IntGaugeVec::new(limit, &["map"])?;
        let flows = own(
            "flows",
            "Connections in the flow table, and whether they are assured: whether \
             they give way to no other, at the last sweep",
        );
        let flows = IntGaugeVec::new(flows, &[ASSURED])?;
        let ports =
            own("source_ports", "Source ports that the programs give out, for each backend");
        let ports = IntGauge::with_opts(ports)?;
        let ports_used = own(
            "source_ports_used",
            "Source ports that are taken at the backend of which \
             most are, by connections that are assured or not, at the last sweep",
        );
        let ports_used = IntGaugeVec::new(ports_used, &[ASSURED])?;
        register(registry, &sweeps)?;
        register(registry, &left)?;
        register(registry, &swept)?;
        register(registry, &sockets)?;
        register(registry, &entries)?;
        register(registry, &capacity)?;
        register(registry, &limit)?;
        register(registry, &flows)?;
        register(registry, &ports)?;
        register(registry, &ports_used)?;
        let by_assured =
            |vec: &IntGaugeVec| ["true", "false"].map(|value| vec.with_label_values(&[value]));
        Ok(Self {
            sweeps: FAMILIES.map(|family| sweeps.with_label_values(&[ip_family(family)])),
            left: FAMILIES.map(|family| left.with_label_values(&[ip_family(family)])),
            swept,
            sockets,
            entries,
            capacity,
            limit,
            flows: by_assured(&flows),
            ports,
            ports_used: by_assured(&ports_used),
        })
    }

    /// A sweep is over.
    pub(crate) fn swept(&self, report: &SweepReport, took: Duration) {
        self.sweeps.iter().for_each(|histogram| histogram.observe(took.as_secs_f64()));
        self.swept.inc_by(report.removed as u64);
        for (counter, count) in self.left.iter().zip([report.left_v4, report.left_v6]) {
            counter.inc_by(count as u64);
        }
        for (gauge, count) in self.flows.iter().zip([report.assured, report.unassured]) {
            gauge.set(count as i64);
        }
        self.ports.set(report.ports.map_or(0, |pool| pool.size.into()));
        let fullest = report.ports.and_then(|pool| pool.fullest);
        let used = fullest.map_or([0; 2], |of| [of.assured, of.used - of.assured]);
        for (gauge, count) in self.ports_used.iter().zip(used) {
            gauge.set(count.into());
        }
    }

    /// So many sockets have been closed.
    pub(crate) fn closed(&self, sockets: usize) {
        self.sockets.inc_by(sockets as u64);
    }

    /// How full the maps are.
    pub(crate) fn set_usage(&self, usage: &Usage) {
        let Usage { frontends, services, slots, flows, most } = usage;
        for (name, fill, limit) in [
            (map::FRONTENDS, frontends, most.frontends),
            (map::SERVICES, services, most.services),
            (map::SLOTS, slots, most.slots),
            (map::FLOWS, flows, flows.capacity),
        ] {
            self.limit.with_label_values(&[name]).set(limit.into());
            self.entries.with_label_values(&[name]).set(fill.used.into());
            self.capacity.with_label_values(&[name]).set(fill.capacity.into());
        }
    }
}
