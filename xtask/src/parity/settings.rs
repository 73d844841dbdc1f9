//! How the proxies are set up: `cases/settings.yaml`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use kproxy_lab::{CLUSTER_CIDRS, Mode, ProxySpec, Source};
use serde::Deserialize;
use serde_json::Value;

use super::expected::Who;

/// Settings by name.
pub(super) type All = BTreeMap<String, Settings>;

/// One way to set up the proxies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The nodes' name, if another than their own.
    node_name: Option<String>,
    /// Ranges of the pods, with `NODE` for the node's number; the lab's if left out.
    cluster_cidr: Option<String>,
    /// As `cluster_cidr`, where kproxy is told otherwise.
    kproxy_cluster_cidr: Option<String>,
    /// kproxy's arguments.
    #[serde(default)]
    kproxy: Vec<String>,
    /// Fields of kube-proxy's configuration.
    #[serde(default)]
    kube_proxy: Value,
}

/// Reads them.
///
/// # Errors
/// When the file is broken.
pub(super) fn read() -> Result<All> {
    serde_saphyr::from_str(include_str!("cases/settings.yaml")).context("read settings.yaml")
}

impl Settings {
    /// A proxy of these settings on node `n{number}`.
    pub(super) fn spec(&self, who: Who, number: usize) -> ProxySpec {
        let ours = match who {
            Who::Kproxy => self.kproxy_cluster_cidr.as_ref(),
            Who::Nftables | Who::Iptables => None,
        };
        let ranges = ours.or(self.cluster_cidr.as_ref()).map_or(CLUSTER_CIDRS, String::as_str);
        let ranges = ranges.replace("NODE", &number.to_string());
        let spec = match who {
            Who::Kproxy => ProxySpec::kproxy(Source::Api).args(&self.kproxy),
            Who::Nftables => ProxySpec::kube_proxy(Mode::Nftables).config(self.kube_proxy.clone()),
            Who::Iptables => ProxySpec::kube_proxy(Mode::Iptables).config(self.kube_proxy.clone()),
        };
        let spec = spec.cluster_cidr(&ranges);
        match &self.node_name {
            Some(name) => spec.node_name(name),
            None => spec,
        }
    }
}
