//! How often load balancers and others have asked after kproxy's health (HZ-09).

use prometheus::{IntCounterVec, Opts, Registry, Result};

use super::series::{KUBE_PROXY, register};

/// Label of the status that was answered.
const CODE: &str = "code";

/// Answers by status. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    healthz: IntCounterVec,
    livez: IntCounterVec,
}

impl Health {
    /// All at zero, in `registry`.
    ///
    /// # Errors
    /// A name is taken or is none.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let counter = |path: &str| {
            let help = format!("Answers of /{path} at --healthz-bind-address, by HTTP status");
            let opts = Opts::new(format!("proxy_{path}_total"), help);
            IntCounterVec::new(opts.namespace(KUBE_PROXY), &[CODE])
        };
        let counts = Self { healthz: counter("healthz")?, livez: counter("livez")? };
        register(registry, &counts.healthz)?;
        register(registry, &counts.livez)?;
        Ok(counts)
    }

    /// `/healthz` was answered with this status.
    pub(crate) fn told_healthz(&self, code: &str) {
        self.healthz.with_label_values(&[code]).inc();
    }

    /// `/livez` was answered with this status.
    pub(crate) fn told_livez(&self, code: &str) {
        self.livez.with_label_values(&[code]).inc();
    }
}
