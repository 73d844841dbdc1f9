//! Findings by service port, and the flows that they concern.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::dataplane::read::{FlowRow, name_opt};
use crate::dataplane::verify::{Finding, Kind};
use crate::plan::{Protocol, ServicePortId, ServicePortPlan};

/// What becomes of a service port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Changed {
    /// Its name.
    #[serde(serialize_with = "name_opt")]
    pub service: Option<ServicePortId>,
    /// Whether it comes, goes, or changes.
    pub change: How,
    /// What of it.
    pub differences: Vec<Part>,
}

/// What becomes of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum How {
    /// It comes.
    Added,
    /// It is there and becomes another.
    Changed,
    /// It goes.
    Removed,
}

impl How {
    const fn of(finding: &Finding) -> Self {
        match (&finding.planned, &finding.kernel) {
            (Some(_), None) => Self::Added,
            (None, Some(_)) => Self::Removed,
            _ => Self::Changed,
        }
    }
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Part {
    /// Whether it comes, goes, or changes.
    pub change: How,
    /// What kind of thing.
    pub kind: Kind,
    /// Which.
    pub object: String,
    /// What it would be.
    pub planned: Option<String>,
    /// What it is.
    pub kernel: Option<String>,
    /// Flows that are open to what goes.
    pub flows: usize,
    /// Whether they have to go elsewhere, or end; connections go on.
    pub flows_end: bool,
}

/// By service port, in the order of their names. `knows_backends`: whether their backends can be compared.
pub(crate) fn changes(
    findings: Vec<Finding>,
    plans: &[ServicePortPlan],
    flows: &[FlowRow],
    knows_backends: impl Fn(&ServicePortId) -> bool,
) -> Vec<Changed> {
    let mut by_service: BTreeMap<ServicePortId, (How, Vec<Part>)> = BTreeMap::new();
    for finding in findings {
        let Some(service) = finding.service.clone() else { continue };
        let is_of_backends = matches!(finding.kind, Kind::Backend | Kind::Set);
        if is_of_backends && !knows_backends(&service) {
            continue;
        }
        let change = How::of(&finding);
        let of = by_service.entry(service.clone()).or_insert((How::Changed, Vec::new()));
        if finding.kind == Kind::Service {
            of.0 = change;
            of.1.extend(backends_of(&service, change, plans, knows_backends(&service)));
            continue;
        }
        add(&mut of.1, part(finding, change, &service, plans, flows));
    }
    let changed =
        |(service, (change, differences))| Changed { service: Some(service), change, differences };
    by_service.into_iter().map(changed).collect()
}

/// Adds a part; a backend that comes to both sets, or leaves both, is one.
fn add(parts: &mut Vec<Part>, part: Part) {
    let both = |text: &Option<String>| {
        let text = text.as_deref()?;
        Some(text.replace("the Cluster set", "both sets").replace("the Local set", "both sets"))
    };
    let is_other = |before: &&mut Part| {
        (before.kind, before.change, &before.object) == (Kind::Backend, part.change, &part.object)
            && (both(&before.planned), both(&before.kernel))
                == (both(&part.planned), both(&part.kernel))
    };
    match parts.iter_mut().find(is_other) {
        Some(before) => {
            (before.planned, before.kernel) = (both(&before.planned), both(&before.kernel));
        }
        None => parts.push(part),
    }
}

/// Of a service port that comes, its backends: the finding is one for all of it.
fn backends_of(
    service: &ServicePortId,
    change: How,
    plans: &[ServicePortPlan],
    are_known: bool,
) -> Vec<Part> {
    let plan = plans.iter().find(|plan| plan.id == *service && change == How::Added && are_known);
    let backends = plan.into_iter().flat_map(|plan| &plan.cluster.backends);
    let part = |object: String| Part {
        change: How::Added,
        kind: Kind::Backend,
        object,
        planned: Some("in the Cluster set".to_owned()),
        kernel: None,
        flows: 0,
        flows_end: false,
    };
    backends.map(|of| part(SocketAddr::new(of.addr, of.port).to_string())).collect()
}

fn part(
    finding: Finding,
    change: How,
    service: &ServicePortId,
    plans: &[ServicePortPlan],
    flows: &[FlowRow],
) -> Part {
    let Finding { kind, object, planned, kernel, .. } = finding;
    let of_service = flows.iter().filter(|flow| flow.service.as_ref() == Some(service));
    let count =
        |is_of: &dyn Fn(&FlowRow) -> bool| of_service.clone().filter(|flow| is_of(flow)).count();
    let flows = match (change, kind) {
        (How::Removed, Kind::Backend) => count(&|flow| flow.backend.to_string() == object),
        (How::Removed, Kind::Frontend) => {
            let dialled = |flow: &FlowRow| format!("{}/{}", flow.frontend, service.protocol.name());
            count(&|flow| dialled(flow) == object)
        }
        _ => 0,
    };
    // A UDP flow stays as long as its endpoint serves (CT-05).
    let serves = |plan: &ServicePortPlan| {
        let sets = [Some(&plan.cluster), plan.local.as_ref()].into_iter().flatten();
        let backends = sets.flat_map(|set| &set.backends).map(|of| (of.addr, of.port));
        backends
            .chain(plan.serving.iter().copied())
            .any(|(addr, port)| SocketAddr::new(addr, port).to_string() == object)
    };
    let plan = plans.iter().find(|plan| plan.id == *service);
    let flows_end = flows > 0
        && kind == Kind::Backend
        && service.protocol == Protocol::Udp
        && !plan.is_some_and(serves);
    let without_owner = |text: Option<String>| {
        let own = format!("service {}, ", service.text());
        text.map(|text| text.strip_prefix(&own).map_or(text.clone(), str::to_owned))
    };
    let (planned, kernel) = (without_owner(planned), without_owner(kernel));
    Part { change, kind, object, planned, kernel, flows, flows_end }
}
