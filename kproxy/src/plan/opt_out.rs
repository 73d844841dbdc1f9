//! Which pods' sockets the socket path leaves alone (docs/decisions/0014-opt-out.md).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

/// The pods that are opted out of the socket path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct OptOut {
    /// Those with an address in one of these ranges.
    pub ranges: Vec<IpNet>,
    /// Those of these Kubernetes namespaces.
    pub namespaces: BTreeSet<String>,
}

impl OptOut {
    /// Whether no pod is.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.namespaces.is_empty()
    }
}

/// What the socket path does with the sockets of a network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SocketVerdict {
    /// Serves them.
    Served,
    /// Leaves them alone: the pod is opted out.
    OptedOut,
    /// Leaves them alone: the pod may be opted out. Its packets are translated where they come in, which
    /// is right for any pod.
    Undecided,
}

/// Verdicts by cookie of the network namespace. One that is not among them counts as undecided.
pub(crate) type SocketVerdicts = BTreeMap<u64, SocketVerdict>;

/// The verdicts on the network namespaces that are `seen`, each with the addresses in it.
///
/// `pods` are the addresses of each pod of the namespaces that are opted out; `None` while they are not
/// known. Until each of these pods is found on the node, a new network namespace may be its own, so it is
/// not decided, and one that was decided `before` stays as it is.
pub(crate) fn socket_verdicts(
    opt_out: &OptOut,
    pods: Option<&[BTreeSet<IpAddr>]>,
    seen: &BTreeMap<u64, BTreeSet<IpAddr>>,
    before: &SocketVerdicts,
) -> SocketVerdicts {
    let opted_out: BTreeSet<&IpAddr> = pods.unwrap_or_default().iter().flatten().collect();
    let is_opted_out = |ip: &IpAddr| {
        opted_out.contains(ip) || opt_out.ranges.iter().any(|range| range.contains(ip))
    };
    let on_node: BTreeSet<&IpAddr> = seen.values().flatten().collect();
    let is_found = |pod: &BTreeSet<IpAddr>| pod.iter().any(|ip| on_node.contains(ip));
    let all_found =
        opt_out.namespaces.is_empty() || pods.is_some_and(|pods| pods.iter().all(is_found));
    let verdict = |cookie: &u64, addresses: &BTreeSet<IpAddr>| {
        if addresses.iter().any(is_opted_out) {
            SocketVerdict::OptedOut
        } else if addresses.is_empty() || !all_found {
            before.get(cookie).copied().unwrap_or(SocketVerdict::Undecided)
        } else {
            SocketVerdict::Served
        }
    };
    seen.iter().map(|(cookie, addresses)| (*cookie, verdict(cookie, addresses))).collect()
}
