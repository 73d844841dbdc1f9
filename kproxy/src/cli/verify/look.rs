//! One look at the kernel.

use std::collections::HashSet;

use anyhow::Result;
use kproxy_common::abi::program;
use kproxy_common::config::config_flags;

use super::source::Plan;
use crate::cli::status::attached;
use crate::daemon::fresh::Planned;
use crate::dataplane::read::{LinkRow, Pins};
use crate::dataplane::verify::{self, Finding, Held, Hooks, Kind};
use crate::plan::{Algorithm, Family, FrontendKind, Protocol};

/// What was seen.
pub(crate) struct Seen {
    /// What differs or contradicts itself.
    pub findings: Vec<Finding>,
    /// Service ports in the maps.
    pub services: usize,
    /// Frontends in the maps.
    pub frontends: usize,
    /// Programs that are attached.
    pub programs: usize,
}

/// Looks.
///
/// # Errors
/// A map or the links could not be read.
pub(super) fn look(pins: &Pins, source: &mut Plan) -> Result<Seen> {
    let (held, links) = (pins.held()?, pins.links()?);
    let mut findings = match source {
        Plan::Read { fresh, .. } => against(&held, &links, &fresh.planned(&held.config)),
        _ => alone(&links, &held),
    };
    findings.extend(verify::contradictions(&held));
    findings.extend(other_versions(pins));
    let (services, frontends, programs) = (held.names.len(), held.frontends.len(), links.len());
    Ok(Seen { findings, services, frontends, programs })
}

/// Against a plan.
pub(crate) fn against(held: &Held, links: &[LinkRow], planned: &Planned) -> Vec<Finding> {
    let ids: HashSet<_> = planned.plans.iter().map(|plan| &plan.id).collect();
    // What could not be read may be what is left from before.
    let mut findings =
        verify::services(held, &planned.plans, |id| planned.is_whole || ids.contains(id));
    findings.extend(verify::addresses(held, &planned.node_addresses));
    findings.extend(verify::settings(&held.config, &planned.config));
    findings.extend(verify::sources(&held.uplinks, &planned.uplinks));
    findings.extend(verify::hooks(links, &wanted(links, planned)));
    findings
}

/// The programs that should be attached.
fn wanted<'a>(links: &[LinkRow], planned: &'a Planned) -> Hooks<'a> {
    let is_attached = |name: &str| links.iter().any(|link| link.program == name);
    let plans = &planned.plans;
    let answers = |family| {
        let of_family = plans.iter().filter(|plan| plan.id.family == family);
        let mut frontends = of_family.flat_map(|plan| &plan.frontends);
        frontends.any(|of| of.kind == FrontendKind::NodePort)
    };
    let mut loopback = planned.node_addresses.iter().filter(|ip| ip.is_loopback());
    Hooks {
        cgroup: planned.cgroup,
        counts_sockets: plans.iter().any(|plan| plan.algorithm == Algorithm::LeastConnections),
        uplinks: &planned.node.devices,
        pods: &planned.node.pods,
        answers_pods: planned.answers_pods || is_attached(program::POD_EGRESS),
        loopback: planned.config.flags & config_flags::NODE_PACKETS != 0
            || plans.iter().any(|plan| plan.id.protocol == Protocol::Sctp)
            || loopback.any(|ip| answers(Family::of(ip))),
    }
}

/// Without a plan: hooks of which only a part is there.
fn alone(links: &[LinkRow], held: &Held) -> Vec<Finding> {
    let (cgroup, devices) = attached::of(links.to_vec(), held.config.flags);
    let missing = |name: &String, at: &str| {
        Finding::contradicts(Kind::Hook, format!("{name} at {at}"), "is not attached")
    };
    let mut findings: Vec<_> =
        cgroup.missing.iter().map(|name| missing(name, "the cgroup")).collect();
    for device in &devices {
        findings.extend(device.missing.iter().map(|name| missing(name, &device.name)));
    }
    if devices.is_empty() {
        findings.push(Finding::contradicts(
            Kind::Hook,
            "at devices",
            "no program is attached to any: clients outside are not served",
        ));
    }
    findings
}

fn other_versions(pins: &Pins) -> Vec<Finding> {
    let finding = |version: u32| {
        let wrong = "are attached beside those of this version";
        Finding::contradicts(Kind::Hook, format!("programs of layout version {version}"), wrong)
    };
    pins.other_versions().into_iter().map(finding).collect()
}
