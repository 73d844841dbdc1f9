//! How the real kube-proxy is run on a node.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::lab::{Lab, Place};
use crate::proxy::handle::{Proxy, Ready};
use crate::proxy::{Mode, ProxySpec, command_with};
use crate::{kubernetes, manifest, netns};

/// Where it shows its metrics; its default.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);

pub(super) fn prepare(lab: &Lab, node: &str, mode: Mode, spec: &ProxySpec) -> Result<Proxy> {
    if !netns::has_bridge_netfilter() {
        bail!("kube-proxy cannot serve pods of one bridge without `modprobe br_netfilter`");
    }
    let program = spec.binary.clone().map_or_else(kubernetes::kube_proxy, Ok)?;
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "hostnameOverride": spec.node_name.as_deref().unwrap_or(node),
        "clientConnection": {"kubeconfig": lab.control()?.kube_proxy_kubeconfig()},
        "clusterCIDR": spec.cluster_cidr,
        "detectLocalMode": "ClusterCIDR",
        "metricsBindAddress": METRICS.to_string(),
        // 0: left as the kernel has it. The table's size belongs to the whole machine.
        "conntrack": {
            "maxPerCore": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    });
    if !spec.config.is_null() {
        manifest::merge(&mut config, spec.config.clone());
    }
    let file = lab.dir().join(node).join("kube-proxy.yaml");
    let text = serde_saphyr::to_string(&config).context("write kube-proxy's configuration")?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;

    let mut run = command_with(lab, node, &program, spec.capabilities.as_deref())?;
    run.arg("--config").arg(&file).args(&spec.arguments);
    let mut cleanup = command_with(lab, node, &program, None)?;
    cleanup.arg("--cleanup").arg("--config").arg(&file);
    let ready = Ready::Metrics(lab.place(node)?);
    Ok(Proxy::new(lab, node, "kube-proxy", run, cleanup, ready))
}

/// Whether kube-proxy's rules of both families are younger than all changes that it has noticed.
/// Its first rules come after both of its lists are complete.
pub(super) fn is_synced(node: &Place) -> Result<bool> {
    let metrics = node.http_get(METRICS, "/metrics")?;
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
