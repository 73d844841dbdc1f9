//! Serialisers that write plan types with the words of Kubernetes.

use ipnet::IpNet;
use kproxy_common::{drop_reason::DropReason, flow::FlowState};
use serde::{Serializer, ser::SerializeStruct as _};

use crate::plan::{Algorithm, EmptyVerdict, FrontendKind, Protocol, Scope, ServicePortId, Sources};

/// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
pub(crate) const fn kind_name(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::ExternalIp => "ExternalIP",
        FrontendKind::LoadBalancer => "LoadBalancer",
    }
}

/// `Cluster` or `Local`, as traffic policies are written.
pub(crate) const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Cluster => "Cluster",
        Scope::Local => "Local",
    }
}

/// `reject` or `drop`.
pub(crate) const fn verdict_name(verdict: EmptyVerdict) -> &'static str {
    match verdict {
        EmptyVerdict::Reject => "reject",
        EmptyVerdict::Drop => "drop",
    }
}

pub(in crate::dataplane) fn kinds<S: Serializer>(
    kinds: &[FrontendKind],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(kinds.iter().map(|kind| kind_name(*kind)))
}

pub(in crate::dataplane) fn scope<S: Serializer>(scope: &Scope, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(scope_name(*scope))
}

pub(in crate::dataplane) fn scope_opt<S: Serializer>(
    scope: &Option<Scope>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text_opt(scope.map(scope_name), to)
}

/// `all`, `ranges`, or `ranges and this node`.
pub(crate) const fn sources_name(sources: Sources) -> &'static str {
    match sources {
        Sources::All => "all",
        Sources::Ranges { node: false } => "ranges",
        Sources::Ranges { node: true } => "ranges and this node",
    }
}

pub(in crate::dataplane) fn algorithm<S: Serializer>(
    algorithm: &Algorithm,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(algorithm.name())
}

pub(in crate::dataplane) fn sources<S: Serializer>(
    sources: &Sources,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(sources_name(*sources))
}

pub(in crate::dataplane) fn verdict_opt<S: Serializer>(
    verdict: &Option<EmptyVerdict>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text_opt(verdict.map(verdict_name), to)
}

pub(in crate::dataplane) fn protocol_opt<S: Serializer>(
    protocol: &Option<Protocol>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text_opt(protocol.map(Protocol::name), to)
}

pub(in crate::dataplane) fn reason_opt<S: Serializer>(
    reason: &Option<DropReason>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text_opt(reason.map(DropReason::name), to)
}

pub(in crate::dataplane) fn nets<S: Serializer>(nets: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(nets.iter().map(IpNet::to_string))
}

pub(in crate::dataplane) fn net_opt<S: Serializer>(
    net: &Option<IpNet>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text_opt(net.as_ref().map(IpNet::to_string).as_deref(), to)
}

pub(in crate::dataplane) fn flow_state<S: Serializer>(
    state: &Option<FlowState>,
    to: S,
) -> Result<S::Ok, S::Error> {
    text_opt(state.map(FlowState::name), to)
}

pub(crate) fn name_opt<S: Serializer>(
    name: &Option<ServicePortId>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let Some(id) = name else { return to.serialize_none() };
    let mut out = to.serialize_struct("ServicePort", 5)?;
    out.serialize_field("namespace", &id.namespace)?;
    out.serialize_field("name", &id.name)?;
    out.serialize_field("port", &id.port)?;
    out.serialize_field("protocol", id.protocol.name())?;
    out.serialize_field("family", &format_args!("IPv{}", id.family.number()))?;
    out.end()
}

fn text_opt<S: Serializer>(text: Option<&str>, to: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => to.serialize_str(text),
        None => to.serialize_none(),
    }
}
