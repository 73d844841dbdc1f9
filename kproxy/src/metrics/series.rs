//! What the series have in common: prefixes, the label of a family, buckets.

use prometheus::core::Collector;
use prometheus::{Registry, Result};

use crate::model::Family;

/// kube-proxy's prefix.
pub(super) const KUBE_PROXY: &str = "kubeproxy";
/// kproxy's own.
pub(super) const KPROXY: &str = "kproxy";
/// Label of an IP family. One pass of kproxy serves both, so each has the numbers of the pass.
pub(super) const IP_FAMILY: &str = "ip_family";
/// Every family.
pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// As the label says it.
pub(super) const fn ip_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// 0 for IPv4, 1 for IPv6.
pub(super) const fn position(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Shows a metric; whoever holds it goes on counting.
pub(super) fn register<T: Collector + Clone + 'static>(
    registry: &Registry,
    metric: &T,
) -> Result<()> {
    registry.register(Box::new(metric.clone()))
}

/// kube-proxy's buckets for its own work: 1 ms to 16 s.
pub(super) fn durations() -> Result<Vec<f64>> {
    prometheus::exponential_buckets(0.001, 2.0, 15)
}
