//! What holds for what is not given: `SetDefaults_KubeProxyConfiguration` (k8s.io/kubernetes
//! `pkg/proxy/apis/config/v1alpha1/defaults.go`). Empty and zero count as not given where they do there.

use std::net::IpAddr;

use serde_json::Value;

use super::duration::GoDuration;
use super::types::{API_VERSION, KIND, KubeProxyConfiguration, OutputRouting};

/// Port of the question whether the node is in order.
pub(crate) const HEALTHZ_PORT: u16 = 10_256;
/// Port of metrics.
pub(crate) const METRICS_PORT: u16 = 10_249;

impl KubeProxyConfiguration {
    /// With nothing given.
    pub(crate) fn defaults() -> Self {
        let mut config = Self::default();
        fill(&mut config);
        config
    }
}

/// Fills in what is not given.
pub(super) fn fill(config: &mut KubeProxyConfiguration) {
    let minutes = |minutes: i64| GoDuration::seconds(60 * minutes);
    text(&mut config.api_version, API_VERSION);
    text(&mut config.kind, KIND);
    text(&mut config.bind_address, "0.0.0.0");
    let v6 = config.bind_address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    let (healthz, metrics) = if v6 { ("::", "::1") } else { ("0.0.0.0", "127.0.0.1") };
    text(&mut config.healthz_bind_address, healthz);
    text(&mut config.metrics_bind_address, metrics);
    config.healthz_bind_address = with_port(&config.healthz_bind_address, HEALTHZ_PORT);
    config.metrics_bind_address = with_port(&config.metrics_bind_address, METRICS_PORT);

    config.oom_score_adj.get_or_insert(-999);
    config.iptables.masquerade_bit.get_or_insert(14);
    config.iptables.localhost_node_ports.get_or_insert(true);
    config.nftables.masquerade_bit.get_or_insert(14);
    let (half_a_minute, second) = (GoDuration::seconds(30), GoDuration::seconds(1));
    for (period, default) in [
        (&mut config.iptables.sync_period, half_a_minute),
        (&mut config.iptables.min_sync_period, second),
        (&mut config.ipvs.sync_period, half_a_minute),
        (&mut config.nftables.sync_period, half_a_minute),
        (&mut config.nftables.min_sync_period, second),
        (&mut config.config_sync_period, minutes(15)),
        (&mut config.logging.flush_frequency, GoDuration::seconds(5)),
    ] {
        if period.is_zero() {
            *period = default;
        }
    }
    let conntrack = &mut config.conntrack;
    conntrack.max_per_core.get_or_insert(32 * 1024);
    conntrack.min.get_or_insert(128 * 1024);
    conntrack.tcp_established_timeout.get_or_insert(minutes(24 * 60));
    conntrack.tcp_close_wait_timeout.get_or_insert(minutes(60));

    let client = &mut config.client_connection;
    text(&mut client.content_type, "application/vnd.kubernetes.protobuf");
    if client.qps == 0.0 {
        client.qps = 5.0;
    }
    if client.burst == 0 {
        client.burst = 10;
    }
    text(&mut config.logging.format, "text");
    // Not in the file but in the daemon (`platformApplyDefaults`), with the same outcome.
    text(&mut config.detect_local_mode, "ClusterCIDR");
    let OutputRouting { info_buffer_size: text, .. } = &mut config.logging.options.text;
    let OutputRouting { info_buffer_size: json, .. } = &mut config.logging.options.json;
    for size in [text, json] {
        if size.is_null() {
            *size = Value::from("0");
        }
    }
}

/// Mode nftables keeps NodePorts to the node's primary addresses (`platformApplyDefaults`): who comes from it is not
/// to find them open on more.
pub(super) fn fill_by_mode(config: &mut KubeProxyConfiguration) {
    if config.mode == "nftables" && config.node_port_addresses.as_ref().is_none_or(Vec::is_empty) {
        config.node_port_addresses = Some(vec!["primary".to_owned()]);
    }
}

fn text(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

/// An address alone gets this port (`AppendPortIfNeeded`).
pub(super) fn with_port(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        Err(_) => address.to_owned(),
    }
}
