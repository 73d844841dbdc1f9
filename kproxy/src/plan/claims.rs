//! Who gets a frontend that two service ports want (VER-19).
//!
//! kube-proxy leaves the winner undefined. Here a ClusterIP, which the API server gives out once,
//! beats an externalIP or load-balancer address that anybody may write down; among equals the
//! oldest Service wins, then the first by namespace, name and port. The loser keeps its other
//! frontends, and gets this one when the winner lets go of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Family, Problem, Protocol, ServiceName};

use super::{Change, Frontend, FrontendKind, ServicePortId, ServicePortPlan};

/// What clients dial, as the maps have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Key {
    addr: IpAddr,
    port: u16,
    protocol: Protocol,
}

impl Key {
    const fn of(frontend: &Frontend, protocol: Protocol) -> Self {
        Self { addr: frontend.addr, port: frontend.port, protocol }
    }
}

/// A claim; the smallest one wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claim {
    kind: FrontendKind,
    /// A Service that does not say when it was made counts as the youngest.
    created: i64,
    id: Arc<ServicePortId>,
}

#[derive(Debug)]
struct Entry {
    /// As planned, with all frontends.
    plan: ServicePortPlan,
    /// Frontends that another service port holds, and which one.
    withheld: BTreeMap<Key, Arc<ServicePortId>>,
}

impl Entry {
    /// The plan without what is withheld.
    fn effective(&self) -> ServicePortPlan {
        let mut plan = self.plan.clone();
        if !self.withheld.is_empty() {
            let protocol = plan.id.protocol;
            plan.frontends.retain(|f| !self.withheld.contains_key(&Key::of(f, protocol)));
        }
        plan
    }
}

/// All service ports and what each may serve.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    entries: BTreeMap<Arc<ServicePortId>, Entry>,
    claims: HashMap<Key, Vec<Claim>>,
}

/// The answer of [`Claims::update`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Removals first, then sets, each in the order of their ids.
    pub changes: Vec<Change>,
    /// Service ports whose withheld frontends changed: their [`Claims::problems`] are to be asked
    /// anew.
    pub disputed: BTreeSet<ServicePortId>,
}

impl Claims {
    /// No service port.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes new plans (`None`: the service port is gone) and answers what changes for the data
    /// path, including other service ports that win or lose a frontend by it.
    pub(crate) fn update(
        &mut self,
        plans: impl IntoIterator<Item = (ServicePortId, Option<ServicePortPlan>)>,
    ) -> Settled {
        let mut dirty = BTreeSet::new();
        let mut keys = BTreeSet::new();
        let mut settled = Settled::default();
        for (id, plan) in plans {
            let before = self.entries.get(&id).map(|entry| &entry.plan);
            if before == plan.as_ref() {
                continue;
            }
            self.unclaim(&id, &mut keys);
            match plan {
                Some(plan) => {
                    if self.claim(plan, &mut keys) {
                        settled.disputed.insert(id.clone());
                    }
                }
                None => {
                    if let Some(gone) = self.entries.remove(&id)
                        && !gone.withheld.is_empty()
                    {
                        settled.disputed.insert(id.clone());
                    }
                }
            }
            dirty.insert(id);
        }
        for key in keys {
            self.settle(key, &mut dirty, &mut settled.disputed);
        }
        let mut sets = Vec::new();
        for id in dirty {
            match self.entries.get(&id) {
                Some(entry) => sets.push(Change::Set(entry.effective())),
                None => settled.changes.push(Change::Remove(id)),
            }
        }
        settled.changes.append(&mut sets);
        settled
    }

    /// Every plan as it should be in the data path, in the order of ids.
    pub(crate) fn plans(&self) -> Vec<ServicePortPlan> {
        self.entries.values().map(Entry::effective).collect()
    }

    /// The service ports of a Service.
    pub(crate) fn ids_of<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = &'a ServicePortId> + 'a {
        let first = ServicePortId {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        self.entries
            .range::<ServicePortId, _>(first..)
            .map(|(id, _)| &**id)
            .take_while(move |id| id.namespace == service.namespace && id.name == service.name)
    }

    /// One problem for each frontend that is withheld from a service port.
    pub(crate) fn problems(&self, id: &ServicePortId) -> Vec<Problem> {
        let Some(entry) = self.entries.get(id) else { return Vec::new() };
        entry.withheld.iter().map(|(key, winner)| clash(id, key, winner)).collect()
    }

    fn unclaim(&mut self, id: &ServicePortId, keys: &mut BTreeSet<Key>) {
        let Some(entry) = self.entries.get(id) else { return };
        for frontend in &entry.plan.frontends {
            let key = Key::of(frontend, id.protocol);
            keys.insert(key);
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.retain(|claim| *claim.id != *id);
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
        }
    }

    /// Takes a plan; answers whether a frontend that was withheld is no longer wanted.
    fn claim(&mut self, plan: ServicePortPlan, keys: &mut BTreeSet<Key>) -> bool {
        let id = match self.entries.get_key_value(&plan.id) {
            Some((id, _)) => Arc::clone(id),
            None => Arc::new(plan.id.clone()),
        };
        for frontend in &plan.frontends {
            let key = Key::of(frontend, id.protocol);
            keys.insert(key);
            // Nearly every frontend has one claimant: do not reserve room for four.
            let claims = self.claims.entry(key).or_insert_with(|| Vec::with_capacity(1));
            let created = plan.created.unwrap_or(i64::MAX);
            claims.push(Claim { kind: frontend.kind, created, id: Arc::clone(&id) });
        }
        let wanted: BTreeSet<_> = plan.frontends.iter().map(|f| Key::of(f, id.protocol)).collect();
        match self.entries.get_mut(&id) {
            Some(entry) => {
                entry.plan = plan;
                // `settle` sees only frontends that somebody claims, this one is no longer there.
                let before = entry.withheld.len();
                entry.withheld.retain(|key, _| wanted.contains(key));
                entry.withheld.len() != before
            }
            None => {
                self.entries.insert(id, Entry { plan, withheld: BTreeMap::new() });
                false
            }
        }
    }

    fn settle(
        &mut self,
        key: Key,
        dirty: &mut BTreeSet<ServicePortId>,
        disputed: &mut BTreeSet<ServicePortId>,
    ) {
        let Some(claims) = self.claims.get(&key) else { return };
        let Some(Claim { id: winner, .. }) = claims.iter().min() else { return };
        for Claim { id, .. } in claims {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let changed = if id == winner {
                entry.withheld.remove(&key).is_some()
            } else {
                entry.withheld.insert(key, Arc::clone(winner)).as_ref() != Some(winner)
            };
            if changed {
                dirty.insert(ServicePortId::clone(id));
                disputed.insert(ServicePortId::clone(id));
            }
        }
    }
}

fn clash(id: &ServicePortId, key: &Key, winner: &ServicePortId) -> Problem {
    let frontend = if key.addr.is_unspecified() {
        format!("NodePort {}/{}", key.port, key.protocol.name())
    } else {
        format!("{}/{}", std::net::SocketAddr::new(key.addr, key.port), key.protocol.name())
    };
    Problem::new(
        format!("Service {}/{}", id.namespace, id.name),
        format!("{frontend} belongs to {winner}, so {id} does not get it"),
        "change the address or the port of one of the two",
    )
}
