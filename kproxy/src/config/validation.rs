//! What is refused: kube-proxy's own rules (k8s.io/kubernetes `pkg/proxy/apis/config/validation/validation.go`,
//! k8s.io/component-base `logs/api/v1/options.go`), with the paths of the file.
//!
//! `nodePortAddresses` follows 1.37, which takes all that 1.36 takes. An empty `metricsBindAddress`, which only a flag
//! can give, means nowhere (CFG-10).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::duration::GoDuration;
use super::types::{KubeProxyConfiguration, OutputRouting};

/// A field that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Invalid {
    /// Its path.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) value: String,
    /// The rule.
    pub(crate) rule: String,
}

/// Words that stand for addresses in `nodePortAddresses`.
pub(crate) const NODE_PORT_WORDS: [&str; 3] = ["primary", "localhost", "all"];

/// What cannot be used.
pub(super) fn validate(config: &KubeProxyConfiguration) -> Vec<Invalid> {
    let mut found = Found(Vec::new());
    modes(config, &mut found);
    numbers(config, &mut found);
    addresses(config, &mut found);
    detect_local(config, &mut found);
    logging(config, &mut found);
    found.0
}

struct Found(Vec<Invalid>);

impl Found {
    fn add(&mut self, path: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) {
        self.0.push(Invalid { path: path.into(), value: value.to_string(), rule: rule.into() });
    }

    fn within(&mut self, path: &str, value: Option<i32>, low: i32, high: i32) {
        if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
            let rule = match high {
                i32::MAX => format!("must be greater than or equal to {low}"),
                _ => format!("must be within the range [{low}, {high}]"),
            };
            self.add(path, value, rule);
        }
    }

    fn not_negative(&mut self, path: &str, duration: GoDuration) {
        if duration.is_negative() {
            self.add(path, duration, "must be greater than or equal to 0");
        }
    }

    fn positive(&mut self, path: &str, duration: GoDuration) {
        if duration.is_negative() || duration.is_zero() {
            self.add(path, duration, "must be greater than 0");
        }
    }
}

fn modes(config: &KubeProxyConfiguration, found: &mut Found) {
    let ipvs_is_off = config.feature_gates.get("KubeProxyIPVS") == Some(&false);
    match config.mode.as_str() {
        "" | "iptables" | "nftables" => {}
        "ipvs" if !ipvs_is_off => {}
        mode => {
            let ipvs = if ipvs_is_off { "" } else { ", ipvs" };
            found.add("mode", mode, format!("must be iptables{ipvs}, nftables or blank"));
        }
    }
    let (section, sync, min_sync) = match config.mode.as_str() {
        "ipvs" => ("ipvs", config.ipvs.sync_period, config.ipvs.min_sync_period),
        "nftables" => ("nftables", config.nftables.sync_period, config.nftables.min_sync_period),
        _ => ("iptables", config.iptables.sync_period, config.iptables.min_sync_period),
    };
    found.positive(&format!("{section}.syncPeriod"), sync);
    found.not_negative(&format!("{section}.minSyncPeriod"), min_sync);
    if min_sync > sync && !sync.is_negative() {
        // kube-proxy blames syncPeriod, which is a default more often.
        let rule = format!("must be no longer than {section}.syncPeriod, {sync}");
        found.add(format!("{section}.minSyncPeriod"), min_sync, rule);
    }
    found.within("iptables.masqueradeBit", config.iptables.masquerade_bit, 0, 31);
    match config.mode.as_str() {
        "nftables" => {
            found.within("nftables.masqueradeBit", config.nftables.masquerade_bit, 0, 31);
        }
        "ipvs" => {
            let ipvs = &config.ipvs;
            found.not_negative("ipvs.tcpTimeout", ipvs.tcp_timeout);
            found.not_negative("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout);
            found.not_negative("ipvs.udpTimeout", ipvs.udp_timeout);
            for (index, cidr) in ipvs.exclude_cidrs.iter().flatten().enumerate() {
                if cidr.parse::<IpNet>().is_err() {
                    found.add(format!("ipvs.excludeCIDRs[{index}]"), cidr, "must be a valid CIDR");
                }
            }
        }
        _ => {}
    }
}

fn numbers(config: &KubeProxyConfiguration, found: &mut Found) {
    let conntrack = &config.conntrack;
    found.within("conntrack.maxPerCore", conntrack.max_per_core, 0, i32::MAX);
    found.within("conntrack.min", conntrack.min, 0, i32::MAX);
    for (path, time) in [
        ("conntrack.tcpEstablishedTimeout", conntrack.tcp_established_timeout),
        ("conntrack.tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout),
        ("conntrack.udpTimeout", Some(conntrack.udp_timeout)),
        ("conntrack.udpStreamTimeout", Some(conntrack.udp_stream_timeout)),
    ] {
        let time = time.unwrap_or_default();
        found.not_negative(path, time);
        if time.as_seconds() > i32::MAX.into() {
            found.add(path, time, "must be no longer than the kernel can count");
        }
    }
    found.within("oomScoreAdj", config.oom_score_adj, -1000, 1000);
    let burst = Some(config.client_connection.burst);
    found.within("clientConnection.burst", burst, 0, i32::MAX);
    found.positive("configSyncPeriod", config.config_sync_period);
    // Each release takes the one before it alone.
    let version = config.show_hidden_metrics_for_version.as_str();
    if !["", "1.35", "1.36"].contains(&version) {
        let rule = "must be omitted or the previous minor version, 1.35 or 1.36";
        found.add("showHiddenMetricsForVersion", version, rule);
    }
}

fn addresses(config: &KubeProxyConfiguration, found: &mut Found) {
    if config.bind_address.parse::<IpAddr>().is_err() {
        found.add("bindAddress", &config.bind_address, "must be an IP address");
    }
    for (path, address) in [
        ("healthzBindAddress", &config.healthz_bind_address),
        ("metricsBindAddress", &config.metrics_bind_address),
    ] {
        let usable = address.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
        if !address.is_empty() && !usable {
            found.add(path, address, "must be IP:port, such as 127.0.0.1:10249 or [::]:10256");
        }
    }
    let mut words = Vec::new();
    for (index, text) in config.node_port_addresses.iter().flatten().enumerate() {
        let path = || format!("nodePortAddresses[{index}]");
        if NODE_PORT_WORDS.contains(&text.as_str()) {
            if words.contains(&text) {
                found.add(path(), text, "is there twice");
            }
            words.push(text);
        } else if text.parse::<IpNet>().is_err() {
            let rule = "must be an address range like 192.0.2.0/24, or one of the words primary, localhost, all";
            found.add(path(), text, rule);
        }
    }
}

fn detect_local(config: &KubeProxyConfiguration, found: &mut Found) {
    let needs = |found: &mut Found, path, name: &str| {
        if name.is_empty() {
            found.add(path, "\"\"", "must not be empty with this detectLocalMode");
        }
    };
    let local = &config.detect_local;
    match config.detect_local_mode.as_str() {
        "ClusterCIDR" => cluster_cidr(&config.cluster_cidr, found),
        "NodeCIDR" => {}
        "BridgeInterface" => needs(found, "detectLocal.bridgeInterface", &local.bridge_interface),
        "InterfaceNamePrefix" => {
            needs(found, "detectLocal.interfaceNamePrefix", &local.interface_name_prefix);
        }
        mode => {
            let rule =
                "must be ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix or blank";
            found.add("detectLocalMode", mode, rule);
        }
    }
}

fn cluster_cidr(text: &str, found: &mut Found) {
    if text.is_empty() {
        return;
    }
    let parts: Vec<_> = text.split(',').map(|part| (part, part.trim().parse::<IpNet>())).collect();
    for (part, range) in &parts {
        if range.is_err() {
            let rule = "must be an address range like 10.244.0.0/16 or fd00::/56";
            found.add("clusterCIDR", part, rule);
        }
    }
    let families: Vec<bool> = parts
        .iter()
        .filter_map(|(_, range)| range.as_ref().ok())
        .map(|range| matches!(range, IpNet::V6(_)))
        .collect();
    if families.len() > 2 || matches!(families[..], [one, other] if one == other) {
        let rule = "must be one address range, or one of each family";
        found.add("clusterCIDR", text, rule);
    }
}

fn logging(config: &KubeProxyConfiguration, found: &mut Found) {
    let logging = &config.logging;
    found.positive("logging.flushFrequency", logging.flush_frequency);
    if !matches!(logging.format.as_str(), "text" | "json") {
        found.add("logging.format", &logging.format, "must be text or json");
    }
    let highest = i32::MAX.unsigned_abs();
    if logging.verbosity > highest {
        found.add("logging.verbosity", logging.verbosity, format!("must be {highest} at most"));
    }
    if !logging.vmodule.is_empty() && logging.format != "text" {
        found.add("logging.vmodule", "…", "is only for format text");
    }
    for (index, item) in logging.vmodule.iter().enumerate() {
        let path = format!("logging.vmodule[{index}]");
        if item.file_pattern.is_empty() {
            found.add(&path, "\"\"", "must have a filePattern");
        }
        if item.file_pattern.contains(['=', ',']) {
            found.add(&path, &item.file_pattern, "must hold no equals sign and no comma");
        }
        if item.verbosity > highest {
            found.add(&path, item.verbosity, format!("must be {highest} at most"));
        }
    }
    let alpha = ["LoggingAlphaOptions", "AllAlpha"];
    let allowed = alpha.iter().find_map(|gate| config.feature_gates.get(*gate)) == Some(&true);
    for (format, options) in [("text", &logging.options.text), ("json", &logging.options.json)] {
        let OutputRouting { info_buffer_size, split_stream } = options;
        let path = |field| format!("logging.options.{format}.{field}");
        let rule = "needs the feature gate LoggingAlphaOptions";
        if *split_stream && !allowed {
            found.add(path("splitStream"), true, rule);
        }
        match quantity_is_zero(info_buffer_size) {
            Some(false) if !allowed => {
                found.add(path("infoBufferSize"), info_buffer_size, rule);
            }
            Some(_) => {}
            None => {
                found.add(path("infoBufferSize"), info_buffer_size, "must be a size, like 64Ki")
            }
        }
    }
}

/// Whether a size (`64Ki`, `512`) is none; nothing: it is no size.
fn quantity_is_zero(size: &Value) -> Option<bool> {
    let text = match size {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let units = ["", "k", "K", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    units.contains(&unit).then_some(number == 0.0)
}
