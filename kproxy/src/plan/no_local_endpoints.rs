//! Service ports that have endpoints, but none on this node where a policy wants one.

use std::collections::HashSet;

use super::{Change, EmptyVerdict, Family, FrontendKind, Scope, ServicePortId, ServicePortPlan};

/// A traffic policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// internalTrafficPolicy: for the ClusterIP.
    Internal,
    /// externalTrafficPolicy: for everything else that clients dial.
    External,
}

impl Policy {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Internal, Self::External];

    /// Whether the policy drops new connections to a service port, as all its endpoints are elsewhere
    /// (VER-04, VER-07).
    fn drops(self, plan: &ServicePortPlan) -> bool {
        let Some(local) = &plan.local else { return false };
        let drops = local.backends.is_empty() && local.when_empty == EmptyVerdict::Drop;
        drops
            && plan.frontends.iter().any(|frontend| {
                let of_cluster_ip = frontend.kind == FrontendKind::ClusterIp;
                frontend.external == Scope::Local && of_cluster_ip == (self == Self::Internal)
            })
    }
}

/// Which service ports those are, by policy and family (VER-18). Kept in step with the changes, so
/// that a change costs the same however many service ports there are.
#[derive(Debug, Default)]
pub(crate) struct NoLocalEndpoints {
    ports: [HashSet<ServicePortId>; 4],
}

impl NoLocalEndpoints {
    /// Takes a change.
    pub(crate) fn update(&mut self, change: &Change) {
        let id = change.id();
        for policy in Policy::ALL {
            let ports = &mut self.ports[position(policy, id.family)];
            match change {
                Change::Set(plan) if policy.drops(plan) => {
                    ports.insert(id.clone());
                }
                Change::Set(_) | Change::Remove(_) => {
                    ports.remove(id);
                }
            }
        }
    }

    /// Their number.
    pub(crate) fn count(&self, policy: Policy, family: Family) -> usize {
        self.ports[position(policy, family)].len()
    }
}

const fn position(policy: Policy, family: Family) -> usize {
    policy as usize * 2 + family as usize
}
