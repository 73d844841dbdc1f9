//! What is in force, in the form in which kube-proxy tells it: a `KubeProxyConfiguration` under the name
//! of its group (k8s.io/kube-proxy `config/v1alpha1`), with the fields that mean something here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::settings::{ClusterCidrs, Conntrack, Settings, Source};
use crate::plan::NodePortAddresses;
use crate::server::metrics::MODE;

/// The answer.
pub(super) fn of(settings: &Settings) -> Bytes {
    let ClusterCidrs { v4, v6 } = settings.cluster_cidrs;
    let cidrs = [v4.map(|net| net.to_string()), v6.map(|net| net.to_string())];
    let cidrs: Vec<String> = cidrs.into_iter().flatten().collect();
    let kubeconfig = match &settings.source {
        Source::ApiServer { kubeconfig } => kubeconfig.as_deref(),
        Source::Manifests(_) => None,
    };
    let address = |address: Option<SocketAddr>| address.map_or_else(String::new, |a| a.to_string());
    let config = json!({
        "kind": "KubeProxyConfiguration",
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "clientConnection": {
            "kubeconfig": kubeconfig.map_or_else(String::new, |path| path.display().to_string()),
        },
        "hostnameOverride": settings.node_name,
        "bindAddress": settings.bind_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "healthzBindAddress": address(settings.healthz_address),
        "metricsBindAddress": address(settings.metrics_address),
        "bindAddressHardFail": false,
        "enableProfiling": false,
        "mode": MODE,
        "detectLocalMode": "ClusterCIDR",
        "clusterCIDR": cidrs.join(","),
        "nodePortAddresses": node_port_addresses(&settings.node_port_addresses),
        "conntrack": conntrack(&settings.conntrack),
    });
    Bytes::from(json!({ "kubeproxy.config.k8s.io": config }).to_string())
}

fn node_port_addresses(addresses: &NodePortAddresses) -> Value {
    match addresses {
        NodePortAddresses::All => Value::Null,
        NodePortAddresses::Primary => json!(["primary"]),
        NodePortAddresses::Ranges(ranges) => {
            ranges.iter().map(|range| Value::from(range.to_string())).collect()
        }
    }
}

fn conntrack(conntrack: &Conntrack) -> Value {
    json!({
        "maxPerCore": conntrack.max_per_core,
        "min": conntrack.min,
        "tcpEstablishedTimeout": duration(conntrack.tcp_established),
        "tcpCloseWaitTimeout": duration(conntrack.tcp_close_wait),
        "tcpBeLiberal": conntrack.tcp_be_liberal,
        "udpTimeout": duration(conntrack.udp),
        "udpStreamTimeout": duration(conntrack.udp_stream),
    })
}

/// As Go writes it: `24h0m0s`.
fn duration(seconds: u32) -> String {
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_go_writes_them() {
        let written = [0, 59, 60, 150, 3_600, 86_400, 90_061].map(duration);
        let wanted = ["0s", "59s", "1m0s", "2m30s", "1h0m0s", "24h0m0s", "25h1m1s"];
        assert_eq!(written, wanted);
    }
}
