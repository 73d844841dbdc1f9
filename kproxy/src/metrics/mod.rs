//! What kproxy counts, in the text format of Prometheus.
//!
//! `kubeproxy_*` are kube-proxy's own names with its labels, so that its dashboards and alerts go on
//! working; `kproxy_*` are kproxy's, `process_*` everybody's. `docs/metrics.md` lists them all, and a
//! test holds the page against the registry.
//!
//! The crate is `prometheus` and not `prometheus-client`: that one writes OpenMetrics only, which has no
//! room for kube-proxy's gauge `..._no_local_endpoints_total`.
//!
//! Each part of the daemon holds the numbers that it counts: [`Control`] the control loop, [`Sweep`]
//! the sweeper, [`Health`] the servers. [`Traffic`] is read from the kernel maps for each scrape.

mod control;
mod health;
mod series;
mod sweep;
mod traffic;

#[cfg(test)]
pub(crate) mod tests;

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGaugeVec, Opts, Registry, Result, TextEncoder};

pub(crate) use control::{Change, Control, Pass};
pub(crate) use health::Health;
pub(crate) use sweep::Sweep;
pub(crate) use traffic::Traffic;

use self::series::{KPROXY, register};

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    /// Numbers of the control loop.
    pub control: Control,
    /// What was answered of kproxy's health.
    pub health: Health,
    /// Numbers of the sweeper.
    pub sweep: Sweep,
    /// Numbers of the programs.
    pub traffic: Traffic,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Two metrics have one name, or one is no name.
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            control: Control::new(&registry)?,
            health: Health::new(&registry)?,
            sweep: Sweep::new(&registry)?,
            traffic: Traffic::new(&registry)?,
            registry,
        };
        let opts = Opts::new("build_info", "1, with the version of kproxy and of its map layouts");
        let build = IntGaugeVec::new(opts.namespace(KPROXY), &["version", "abi_version"])?;
        let abi = kproxy_common::abi::ABI_VERSION.to_string();
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), &abi]).set(1);
        register(&metrics.registry, &build)?;
        metrics.registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The numbers as they are now.
    ///
    /// # Errors
    /// Never in practice: a metric without values is left out.
    pub(crate) fn text(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
