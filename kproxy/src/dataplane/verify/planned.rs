//! Services and addresses against what is planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kproxy_common::{
    net::Addr,
    service::{FrontendKey, FrontendValue, frontend_flags, service_port_id},
};

use super::{
    finding::{Finding, Kind, frontend},
    held::{Held, HeldSet},
    runs,
};
use crate::{
    dataplane::{
        codec,
        read::{kind_name, scope_name, sources_name, verdict_name},
    },
    plan::{BackendSet, Scope, ServicePortId, ServicePortPlan},
};

/// How the maps differ from these plans, as far as service ports are concerned that `concerns` names: of those
/// without a plan nothing should be there.
pub(crate) fn services(
    held: &Held,
    plans: &[ServicePortPlan],
    concerns: impl Fn(&ServicePortId) -> bool,
) -> Vec<Finding> {
    let ids = held.ids();
    let mut findings = Vec::new();
    let mut wanted = BTreeMap::new();
    for plan in plans.iter().filter(|plan| concerns(&plan.id)) {
        let id = ids.get(&plan.id).copied();
        match id {
            Some(id) => findings.extend(sets(held, id, plan)),
            None => {
                let planned = Some(backends(plan.cluster.backends.len()));
                let missing = Finding::differs(Kind::Service, plan.id.to_string(), planned, None);
                findings.push(missing.of(&plan.id));
            }
        }
        // Without a number of its own there is nothing that a frontend could lead to.
        for (key, value) in codec::encode_frontends(plan, id.unwrap_or(0)) {
            findings.extend(of_frontend(held, &plan.id, &key, &value));
            wanted.insert(key, ());
        }
    }
    let planned: BTreeSet<_> = plans.iter().map(|plan| &plan.id).collect();
    for (name, id) in ids.into_iter().filter(|(name, _)| concerns(name) && !planned.contains(name))
    {
        let count = held.set(id, Scope::Cluster).map_or(0, |set| set.word().count);
        let kernel = Some(backends(count.into()));
        findings.push(Finding::differs(Kind::Service, name.to_string(), None, kernel).of(name));
    }
    for (key, value) in held.frontends.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        let Some(owner) = held.names.get(&service_port_id(value.internal)) else { continue };
        if concerns(owner) {
            let kernel = Some(whose(owner, value.flags));
            let left = Finding::differs(Kind::Frontend, frontend(key), None, kernel);
            findings.push(left.of(owner));
        }
    }
    findings.sort();
    findings
}

fn backends(count: usize) -> String {
    if count == 1 { "1 backend".to_owned() } else { format!("{count} backends") }
}

/// `service default/web:http, ClusterIP`
fn whose(owner: &ServicePortId, flags: u32) -> String {
    format!("service {}, {}", owner.text(), kinds(flags))
}

fn kinds(flags: u32) -> String {
    let words: Vec<_> = codec::kinds_of(flags).into_iter().map(kind_name).collect();
    words.join("+")
}

/// One frontend of a plan. What it leads to is told in words: the numbers of service ports are the kernel's own.
fn of_frontend(
    held: &Held,
    owner: &ServicePortId,
    key: &FrontendKey,
    wanted: &FrontendValue,
) -> Option<Finding> {
    let differs = |planned, kernel| {
        Some(Finding::differs(Kind::Frontend, frontend(key), planned, kernel).of(owner))
    };
    let Some(there) = held.frontends.get(key) else {
        return differs(Some(whose(owner, wanted.flags)), None);
    };
    let leads_to = held.names.get(&service_port_id(there.internal));
    if leads_to != Some(owner) {
        let kernel = leads_to
            .map_or_else(|| "no known service".to_owned(), |other| whose(other, there.flags));
        return differs(Some(whose(owner, wanted.flags)), Some(kernel));
    }
    let parts = |value: &FrontendValue| {
        let scope = |index| scope_name(codec::scope_of(index));
        [
            kinds(value.flags),
            format!("inside {}", scope(value.internal)),
            format!("outside {}", scope(value.external)),
            format!("open to {}", sources_name(codec::sources_of(value.flags))),
        ]
    };
    let (planned, kernel) = (parts(wanted), parts(there));
    let other: Vec<_> = planned.into_iter().zip(kernel).filter(|(a, b)| a != b).collect();
    let (planned, kernel): (Vec<_>, Vec<_>) = other.into_iter().unzip();
    if planned.is_empty() {
        None
    } else {
        differs(Some(planned.join(", ")), Some(kernel.join(", ")))
    }
}

/// The sets of a service port, and what else is kept of it.
fn sets(held: &Held, id: u32, plan: &ServicePortPlan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (scope, set) in [(Scope::Cluster, Some(&plan.cluster)), (Scope::Local, plan.local.as_ref())]
    {
        match (set, held.set(id, scope)) {
            (Some(set), Some(there)) => {
                if let (0, 0) = (set.backends.len(), there.word().count) {
                    findings.extend(verdict(plan, scope, set, there));
                }
                findings.extend(runs::differences(plan, scope, set, there));
            }
            (None, None) => {}
            (set, there) => {
                let planned = set.map(|set| backends(set.backends.len()));
                let kernel = there.map(|there| backends(there.word().count.into()));
                let finding = Finding::differs(Kind::Set, scope_name(scope), planned, kernel);
                findings.push(finding.of(&plan.id));
            }
        }
    }
    if let Some(there) = held.set(id, Scope::Cluster) {
        findings.extend(fields(plan, there));
    }
    let none = BTreeSet::new();
    let (planned, kernel): (BTreeSet<_>, _) =
        (plan.source_ranges.iter().copied().collect(), held.ranges.get(&id).unwrap_or(&none));
    for net in planned.symmetric_difference(kernel) {
        let open = || Some("open to it".to_owned());
        let (planned, kernel) = if planned.contains(net) { (open(), None) } else { (None, open()) };
        let finding = Finding::differs(Kind::SourceRange, net.to_string(), planned, kernel);
        findings.push(finding.of(&plan.id));
    }
    findings
}

/// What happens while a set is empty.
fn verdict(
    plan: &ServicePortPlan,
    scope: Scope,
    set: &BackendSet,
    there: &HeldSet,
) -> Option<Finding> {
    let kernel = codec::decode_verdict(there.word().first);
    let text = |verdict| Some(format!("{} while it is empty", verdict_name(verdict)));
    (kernel != set.when_empty).then(|| {
        Finding::differs(Kind::Set, scope_name(scope), text(set.when_empty), text(kernel))
            .of(&plan.id)
    })
}

/// What is kept beside the word; the same for both sets.
fn fields(plan: &ServicePortPlan, there: &HeldSet) -> Vec<Finding> {
    let algorithm = codec::decode_algorithm(there.entry.flags);
    let seconds = |seconds: u32| (seconds != 0).then(|| format!("{seconds} seconds"));
    let (planned, kernel) = (plan.affinity_seconds.unwrap_or(0), there.entry.affinity_seconds);
    let mut findings = Vec::new();
    if algorithm != plan.algorithm {
        let (planned, kernel) = (plan.algorithm.name().to_owned(), algorithm.name().to_owned());
        findings.push(Finding::differs(Kind::Algorithm, "", Some(planned), Some(kernel)));
    }
    if planned != kernel {
        findings.push(Finding::differs(Kind::Affinity, "", seconds(planned), seconds(kernel)));
    }
    findings.into_iter().map(|finding| finding.of(&plan.id)).collect()
}

/// How the addresses of this node differ from these.
pub(crate) fn addresses(held: &Held, node: &BTreeSet<IpAddr>) -> Vec<Finding> {
    let planned = node.iter().filter(|ip| !ip.is_unspecified()).map(|ip| Addr::from(*ip));
    let planned: BTreeSet<Addr> = planned.collect();
    let flagged =
        held.addresses.iter().filter(|(_, flags)| **flags & frontend_flags::NODE_ADDRESS != 0);
    let kernel: BTreeSet<Addr> = flagged.map(|(addr, _)| *addr).collect();
    let text = || Some("this node's, NodePorts answer there".to_owned());
    let differs = |addr: &Addr| {
        let (planned, kernel) =
            if planned.contains(addr) { (text(), None) } else { (None, text()) };
        Finding::differs(Kind::Address, IpAddr::from(*addr).to_string(), planned, kernel)
    };
    planned.symmetric_difference(&kernel).map(differs).collect()
}
