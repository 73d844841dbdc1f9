//! Numbers of the control loop.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec,
    Opts, Registry, Result,
};

use super::series::{
    FAMILIES, IP_FAMILY, KPROXY, KUBE_PROXY, durations, ip_family, position, register,
};
use crate::model::Family;
use crate::plan::Policy;
use crate::timing;

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Services.
    Service,
    /// EndpointSlices.
    Endpoints,
}

/// How much a pass looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pass {
    /// Everything.
    Full,
    /// What has changed.
    Partial,
}

/// Numbers of the control loop. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    passes: [Histogram; 2],
    full: [Histogram; 2],
    partial: [Histogram; 2],
    programming: [Histogram; 2],
    last_synced: [Gauge; 2],
    last_queued: [Gauge; 2],
    services: Changes,
    endpoints: Changes,
    no_local_endpoints: IntGaugeVec,
    writes: IntCounter,
    problems: IntGauge,
    stale: IntGauge,
}

#[derive(Clone, Debug)]
struct Changes {
    pending: IntGauge,
    total: IntCounter,
}

impl Control {
    /// All at zero, in `registry`.
    ///
    /// # Errors
    /// A name is taken or is none.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let no_local_endpoints = IntGaugeVec::new(
            kube_proxy(
                "sync_proxy_rules_no_local_endpoints_total",
                "Service ports that have endpoints but none on this node, where a traffic policy \
                 is Local",
            ),
            &["traffic_policy", IP_FAMILY],
        )?;
        register(registry, &no_local_endpoints)?;
        let writes = Opts::new(
            "map_writes_total",
            "Changes of kernel maps that the daemon has made since it started, to follow Services, endpoints \
             and addresses",
        );
        let writes = IntCounter::with_opts(writes.namespace(KPROXY))?;
        register(registry, &writes)?;
        let problems = Opts::new(
            "problems",
            "Problems that the daemon reports now: see kproxy status, or problems.json in its run \
             folder",
        );
        let problems = IntGauge::with_opts(problems.namespace(KPROXY))?;
        register(registry, &problems)?;
        let stale = Opts::new(
            "view_stale_since_seconds",
            "Since when the API server has not answered, so that Services and endpoints may be out of \
             date, in seconds since 1970; 0: it answers",
        );
        let stale = IntGauge::with_opts(stale.namespace(KPROXY))?;
        register(registry, &stale)?;
        let control = Self {
            passes: histograms(
                registry,
                "sync_proxy_rules_duration_seconds",
                "How long it took to bring the kernel maps in step, in seconds; one pass serves \
                 both families",
                durations()?,
            )?,
            full: histograms(
                registry,
                "sync_full_proxy_rules_duration_seconds",
                "How long passes over everything took, the first and those that try again, in seconds",
                durations()?,
            )?,
            partial: histograms(
                registry,
                "sync_partial_proxy_rules_duration_seconds",
                "How long passes over what has changed took, in seconds",
                durations()?,
            )?,
            programming: histograms(
                registry,
                "network_programming_duration_seconds",
                "From a change of pods (annotation endpoints.kubernetes.io/last-change-trigger-time \
                 of the EndpointSlice) until it is in the kernel maps, in seconds",
                programming_buckets()?,
            )?,
            last_synced: gauges(
                registry,
                "sync_proxy_rules_last_timestamp_seconds",
                "When the kernel maps were last brought in step, in seconds since 1970",
            )?,
            last_queued: gauges(
                registry,
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change last came that is to be brought into the kernel maps, in seconds \
                 since 1970",
            )?,
            services: changes(registry, "service", "Services")?,
            endpoints: changes(registry, "endpoint", "EndpointSlices")?,
            no_local_endpoints,
            writes,
            problems,
            stale,
        };
        for family in FAMILIES {
            control.set_no_local_endpoints(Policy::Internal, family, 0);
            control.set_no_local_endpoints(Policy::External, family, 0);
        }
        Ok(control)
    }

    /// Something came that the maps may have to follow.
    pub(crate) fn queued(&self) {
        let seconds = timing::since_1970().as_secs_f64();
        self.last_queued.iter().for_each(|gauge| gauge.set(seconds));
    }

    /// So many objects of a kind have come.
    pub(crate) fn changed(&self, change: Change, count: usize) {
        let changes = match change {
            Change::Service => &self.services,
            Change::Endpoints => &self.endpoints,
        };
        changes.total.inc_by(count as u64);
        changes.pending.add(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The maps are in step with everything that has come.
    pub(crate) fn synced(&self, pass: Pass, took: Duration) {
        let of_pass = match pass {
            Pass::Full => &self.full,
            Pass::Partial => &self.partial,
        };
        for histogram in self.passes.iter().chain(of_pass) {
            histogram.observe(took.as_secs_f64());
        }
        let seconds = timing::since_1970().as_secs_f64();
        self.last_synced.iter().for_each(|gauge| gauge.set(seconds));
        self.services.pending.set(0);
        self.endpoints.pending.set(0);
    }

    /// So many changes were made to kernel maps.
    pub(crate) fn wrote(&self, count: usize) {
        self.writes.inc_by(count as u64);
    }

    /// A change of pods is in force, so long after it.
    pub(crate) fn programmed(&self, family: Family, took: Duration) {
        self.programming[position(family)].observe(took.as_secs_f64());
    }

    /// So many service ports lack local endpoints for a policy (VER-18).
    pub(crate) fn set_no_local_endpoints(&self, policy: Policy, family: Family, count: usize) {
        let policy = match policy {
            Policy::Internal => "internal",
            Policy::External => "external",
        };
        let gauge = self.no_local_endpoints.with_label_values(&[policy, ip_family(family)]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Since when the view may be stale; `None`: it is not.
    pub(crate) fn set_stale(&self, since: Option<Timestamp>) {
        self.stale.set(since.map_or(0, Timestamp::as_second));
    }

    /// So many problems are reported now.
    pub(crate) fn set_problems(&self, count: usize) {
        self.problems.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn kube_proxy(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(KUBE_PROXY)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> Result<[Histogram; 2]> {
    let opts = HistogramOpts::from(kube_proxy(name, help)).buckets(buckets);
    let both = HistogramVec::new(opts, &[IP_FAMILY])?;
    register(registry, &both)?;
    Ok(FAMILIES.map(|family| both.with_label_values(&[ip_family(family)])))
}

fn gauges(registry: &Registry, name: &str, help: &str) -> Result<[Gauge; 2]> {
    let both = GaugeVec::new(kube_proxy(name, help), &[IP_FAMILY])?;
    register(registry, &both)?;
    Ok(FAMILIES.map(|family| both.with_label_values(&[ip_family(family)])))
}

fn changes(registry: &Registry, word: &str, what: &str) -> Result<Changes> {
    let name = |end: &str| format!("sync_proxy_rules_{word}_changes_{end}");
    let pending = format!("{what} that have come and are not yet in the kernel maps");
    let pending = IntGauge::with_opts(kube_proxy(&name("pending"), &pending))?;
    let total = format!("{what} that have come: in the first list, or new, changed or deleted");
    let total = IntCounter::with_opts(kube_proxy(&name("total"), &total))?;
    register(registry, &pending)?;
    register(registry, &total)?;
    Ok(Changes { pending, total })
}

/// kube-proxy's buckets for the time until a change is in force: 250 ms to 5 min, and one of 0, which
/// its `MergeBuckets` (k8s.io/component-base `metrics/buckets.go`) puts in front.
fn programming_buckets() -> Result<Vec<f64>> {
    let parts = [(0.25, 0.25, 2), (1.0, 1.0, 59), (60.0, 5.0, 12), (120.0, 30.0, 7)];
    let parts = parts.map(|(start, width, count)| prometheus::linear_buckets(start, width, count));
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    Ok([0.0].into_iter().chain(parts.concat()).collect())
}
