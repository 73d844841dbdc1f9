//! How the real kube-proxy is run on a node.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::handle::{Proxy, Ready};
use super::metrics;
use super::node::Node;
use super::spec::{Mode, ProxySpec};
use crate::{kubernetes, netns};

/// A kube-proxy on a node, to be started.
pub(crate) fn prepare(
    node: &Node<'_>,
    mode: Mode,
    kubeconfig: &Path,
    spec: &ProxySpec,
) -> Result<Proxy> {
    // Another program under its name has its own needs.
    if spec.binary.is_none() && !netns::has_bridge_netfilter() {
        bail!("kube-proxy cannot serve pods of one bridge without `modprobe br_netfilter`");
    }
    let program = spec.binary.clone().map_or_else(kubernetes::kube_proxy, Ok)?;
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "hostnameOverride": spec.node_name.as_deref().unwrap_or(node.name()),
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": spec.cluster_cidr,
        "detectLocalMode": "ClusterCIDR",
        "metricsBindAddress": metrics::ADDRESS.to_string(),
        // 0: left as the kernel has it. The table's size belongs to the whole machine.
        "conntrack": {
            "maxPerCore": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    });
    if !spec.config.is_null() {
        json_patch::merge(&mut config, &spec.config);
    }
    let file = node.dir().join("kube-proxy.yaml");
    let text = serde_saphyr::to_string(&config).context("write kube-proxy's configuration")?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;

    let mut run = node.command(&program, spec.capabilities.as_deref())?;
    run.arg("--config").arg(&file).args(&spec.arguments);
    let mut cleanup = node.command(&program, None)?;
    cleanup.arg("--cleanup").arg("--config").arg(&file).args(&spec.arguments);
    let ready = Ready::Metrics(Arc::clone(&node.host));
    Ok(Proxy::new(node, "kube-proxy", run, cleanup, ready))
}
