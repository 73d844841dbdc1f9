//! What kube-proxy's metrics say about its rules.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::place::Place;

/// Where it shows them; its default.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);

/// Whether kube-proxy's rules of both families are younger than all changes that it has noticed.
/// Its first rules come after both of its lists are complete.
pub(super) fn is_synced(node: &Place) -> Result<bool> {
    let metrics = node.http_get(ADDRESS, "/metrics")?;
    Ok(["IPv4", "IPv6"].into_iter().all(|family| {
        let gauge = |name: &str| gauge(&metrics, name, family).unwrap_or(0.0);
        let synced = gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds");
        synced > 0.0 && synced >= gauge("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds")
    }))
}

fn gauge(metrics: &str, name: &str, family: &str) -> Option<f64> {
    let start = format!("{name}{{ip_family=\"{family}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_read_by_family() {
        let text = "# HELP x y\nx{ip_family=\"IPv4\"} 1.5e+09\nx{ip_family=\"IPv6\"} 2\n";
        assert_eq!(gauge(text, "x", "IPv4"), Some(1.5e9));
        assert_eq!(gauge(text, "x", "IPv6"), Some(2.0));
        assert_eq!(gauge(text, "y", "IPv6"), None);
    }
}
