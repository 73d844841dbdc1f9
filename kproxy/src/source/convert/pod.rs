//! Pods.

use std::collections::BTreeSet;

use super::{ObjectProblems, parse_ip, pod_key, unusable};
use crate::model::Pod;
use crate::source::{Parsed, Verdict, objects};

/// Converts a Pod. One with `hostNetwork` has the node's network namespace and addresses, and those of
/// one that has ended may be another pod's by now: both count as none.
pub(crate) fn pod(object: &objects::Pod) -> Parsed<Pod> {
    let key = pod_key(&object.metadata);
    let mut problems = ObjectProblems::new(format!("Pod {key}"));
    let (spec, status) = (object.spec.as_ref(), object.status.as_ref());
    let is_host = spec.is_some_and(|spec| spec.host_network == Some(true));
    let phase = status.and_then(|status| status.phase.as_deref());
    if is_host || matches!(phase, Some("Succeeded" | "Failed")) {
        return Parsed { key, verdict: Verdict::Ignore, problems: Vec::new() };
    }
    let first = status.and_then(|status| status.pod_ip.as_deref());
    let all = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let texts: BTreeSet<&str> =
        first.into_iter().chain(all.iter().map(|ip| ip.ip.as_str())).collect();
    let mut addresses = BTreeSet::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        match parse_ip(text) {
            Some(ip) if unusable(&ip).is_none() => drop(addresses.insert(ip)),
            _ => problems.add(
                format!("podIP {text:?} is no address of a pod, it is left out"),
                "write the pod's IPv4 or IPv6 address",
            ),
        }
    }
    let node = spec.and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
    let verdict = Verdict::Use(Pod { name: key.clone(), node, addresses });
    Parsed { key, verdict, problems: problems.list }
}
