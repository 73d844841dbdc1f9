//! Kernel settings of the namespaces of a lab: paths below /proc/sys/net, and values.

use super::shape::{Feature, Network, Shape};

/// Settings of every namespace: no waiting for duplicate address detection, and no reverse path
/// filter that the machine happens to have (new namespaces inherit it).
pub(crate) const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];
/// Settings of nodes and the router besides [`EVERYWHERE`].
pub(crate) const FORWARDING: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Reverse path filter of nodes. Of a device's own setting and that of all devices the larger counts
/// (Documentation/networking/ip-sysctl.rst): 1 is strict, 2 takes a source that is reachable at all.
pub(crate) fn rp_filter(shape: &Shape) -> [(&'static str, &'static str); 2] {
    let value = if shape.has(Feature::SecondUplink) {
        "2"
    } else if shape.has(Feature::RpFilter) {
        "1"
    } else {
        "0"
    };
    [("ipv4/conf/all/rp_filter", value), ("ipv4/conf/default/rp_filter", value)]
}

/// Whether bridged packets pass netfilter; only where br_netfilter is loaded.
pub(crate) const fn bridge_netfilter(on: bool) -> &'static [(&'static str, &'static str)] {
    if on {
        &[("bridge/bridge-nf-call-iptables", "1"), ("bridge/bridge-nf-call-ip6tables", "1")]
    } else {
        &[("bridge/bridge-nf-call-iptables", "0"), ("bridge/bridge-nf-call-ip6tables", "0")]
    }
}

/// Settings of the node's end of a pod (`configureSysctls` of Calico's CNI plugin; `rp_filter` by Felix).
pub(crate) fn pod_port(shape: &Shape, pod: &str) -> Vec<(String, &'static str)> {
    if shape.network != Network::Routed {
        return Vec::new();
    }
    let device = shape.pod_device(pod);
    [
        ("ipv4/conf", "route_localnet", "1"),
        ("ipv4/neigh", "proxy_delay", "0"),
        ("ipv4/conf", "proxy_arp", "1"),
        ("ipv4/conf", "forwarding", "1"),
        ("ipv4/conf", "rp_filter", "1"),
        ("ipv6/conf", "proxy_ndp", "1"),
        ("ipv6/conf", "forwarding", "1"),
        ("ipv6/conf", "accept_ra", "0"),
    ]
    .map(|(folder, name, value)| (format!("{folder}/{device}/{name}"), value))
    .into()
}
