//! Frontends: their key, what they lead to, and flags.

use std::collections::BTreeMap;

use kproxy_common::{
    net::{Addr, Port},
    service::{FrontendKey, FrontendValue, frontend_flags},
};

use super::sets::index_of;
use crate::plan::{Frontend, FrontendKind, Protocol, ServicePortPlan, Sources};

/// Flag of a frontend kind.
pub(crate) const fn kind_flag(kind: FrontendKind) -> u32 {
    match kind {
        FrontendKind::ClusterIp => frontend_flags::CLUSTER_IP,
        FrontendKind::NodePort => frontend_flags::NODE_PORT,
        FrontendKind::ExternalIp => frontend_flags::EXTERNAL_IP,
        FrontendKind::LoadBalancer => frontend_flags::LOAD_BALANCER,
    }
}

/// Kinds among a frontend's flags.
pub(crate) fn kinds_of(flags: u32) -> Vec<FrontendKind> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    [ClusterIp, NodePort, ExternalIp, LoadBalancer]
        .into_iter()
        .filter(|kind| flags & kind_flag(*kind) != 0)
        .collect()
}

/// Flags that say who may dial a frontend.
const fn source_flags(sources: Sources) -> u32 {
    match sources {
        Sources::All => 0,
        Sources::Ranges { node: false } => frontend_flags::SOURCE_RANGES,
        Sources::Ranges { node: true } => {
            frontend_flags::SOURCE_RANGES | frontend_flags::NODE_ALLOWED
        }
    }
}

/// Who may dial a frontend, by its flags.
pub(crate) const fn sources_of(flags: u32) -> Sources {
    if flags & frontend_flags::SOURCE_RANGES == 0 {
        return Sources::All;
    }
    Sources::Ranges { node: flags & frontend_flags::NODE_ALLOWED != 0 }
}

/// The frontends of a plan as the map holds them. An address that a Service lists twice is one
/// entry of both kinds.
pub(crate) fn encode_frontends(
    plan: &ServicePortPlan,
    id: u32,
) -> BTreeMap<FrontendKey, FrontendValue> {
    let mut wanted = BTreeMap::<FrontendKey, FrontendValue>::new();
    for frontend in &plan.frontends {
        let (key, value) = encode_frontend(frontend, plan.id.protocol, id);
        wanted.entry(key).and_modify(|first| first.flags |= value.flags).or_insert(value);
    }
    wanted
}

/// Key and value of a frontend of service port `id`.
pub(crate) fn encode_frontend(
    frontend: &Frontend,
    protocol: Protocol,
    id: u32,
) -> (FrontendKey, FrontendValue) {
    let addr = Addr::from(frontend.addr);
    (
        FrontendKey::new(addr, Port::new(frontend.port), protocol.number()),
        FrontendValue {
            internal: index_of(id, frontend.internal),
            external: index_of(id, frontend.external),
            flags: kind_flag(frontend.kind) | source_flags(frontend.sources),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_back_from_flags() {
        use FrontendKind::{ClusterIp, LoadBalancer};
        assert_eq!(
            kinds_of(kind_flag(ClusterIp) | kind_flag(LoadBalancer)),
            [ClusterIp, LoadBalancer]
        );
        assert_eq!(kinds_of(frontend_flags::NODE_ADDRESS), []);
    }
}
