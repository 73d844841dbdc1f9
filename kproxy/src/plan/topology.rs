//! Which endpoints a service port uses: topology hints, terminating endpoints, Local policies.
//!
//! Follows `CategorizeEndpoints` of kubernetes `pkg/proxy/topology.go` (TOP-01 to TOP-13).

use crate::model::Endpoint;

use super::{Backend, BackendSet, EmptyVerdict};

/// An endpoint of a service port, with its port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Where it is reached, and whether that is on this node.
    pub backend: Backend,
    /// Conditions and hints.
    pub endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    const fn is_ready(&self) -> bool {
        self.endpoint.ready
    }
}

/// Which of the two sets a service port needs (SVC-20, SVC-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Uses {
    /// Some sender gets every usable endpoint.
    pub cluster: bool,
    /// Some sender gets the endpoints of this node.
    pub local: bool,
}

/// The answer of [`categorize`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Categorized {
    /// The cluster-wide set, empty when it is not used (TOP-11).
    pub cluster: BackendSet,
    /// The local set, `None` when it is not used.
    pub local: Option<BackendSet>,
    /// An endpoint that this service port could use exists somewhere in the cluster (TOP-10).
    pub any: bool,
}

/// How endpoint hints narrow the cluster set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    SameNode,
    SameZone,
    Everywhere,
}

/// Sorts candidates into the two sets. `candidates` are free of duplicates.
pub(crate) fn categorize(
    candidates: &[Candidate<'_>],
    uses: Uses,
    node_name: &str,
    zone: Option<&str>,
) -> Categorized {
    let ready_or_draining = |c: &Candidate<'_>| c.is_ready() || c.endpoint.is_serving_terminating();
    let mut any = false;
    let mut cluster = Vec::new();
    if uses.cluster {
        let mode = mode(candidates, node_name, zone);
        cluster = pick(candidates, |c| c.is_ready() && allowed(mode, c, node_name, zone));
        if cluster.is_empty() {
            // Topology cannot have emptied the set (a mode needs one ready endpoint that fits),
            // so nothing is ready anywhere (TOP-06).
            cluster = pick(candidates, |c| c.endpoint.is_serving_terminating());
        }
        any = !cluster.is_empty();
    }
    let local = uses.local.then(|| {
        any |= candidates.iter().any(ready_or_draining);
        let mut local = pick(candidates, |c| c.backend.local && c.is_ready());
        if local.is_empty() {
            // Even while ready endpoints exist on other nodes (TOP-09).
            local = pick(candidates, |c| c.backend.local && c.endpoint.is_serving_terminating());
        }
        // None here but some elsewhere: the client must not be told that nothing listens, a load
        // balancer tries the next node (VER-04, VER-07).
        let when_empty = if any { EmptyVerdict::Drop } else { EmptyVerdict::Reject };
        BackendSet { backends: local, when_empty }
    });
    let cluster = BackendSet { backends: cluster, when_empty: EmptyVerdict::Reject };
    Categorized { cluster, local, any }
}

/// TOP-01 to TOP-04: ready endpoints alone decide, all of them must carry the hint, and at least
/// one must be for us.
fn mode(candidates: &[Candidate<'_>], node_name: &str, zone: Option<&str>) -> Mode {
    let ready = || candidates.iter().filter(|c| c.is_ready()).map(|c| c.endpoint);
    let same_node = ready().all(|e| !e.node_hints.is_empty())
        && ready().any(|e| contains(&e.node_hints, node_name));
    if same_node {
        return Mode::SameNode;
    }
    let same_zone = zone.is_some_and(|zone| {
        ready().all(|e| !e.zone_hints.is_empty()) && ready().any(|e| contains(&e.zone_hints, zone))
    });
    if same_zone { Mode::SameZone } else { Mode::Everywhere }
}

/// TOP-05.
fn allowed(mode: Mode, candidate: &Candidate<'_>, node_name: &str, zone: Option<&str>) -> bool {
    let endpoint = candidate.endpoint;
    match mode {
        Mode::SameNode => contains(&endpoint.node_hints, node_name),
        Mode::SameZone => zone.is_some_and(|zone| contains(&endpoint.zone_hints, zone)),
        Mode::Everywhere => true,
    }
}

fn contains(hints: &[Box<str>], name: &str) -> bool {
    hints.iter().any(|hint| &**hint == name)
}

fn pick(candidates: &[Candidate<'_>], keep: impl Fn(&Candidate<'_>) -> bool) -> Vec<Backend> {
    let mut backends: Vec<_> = candidates.iter().filter(|c| keep(c)).map(|c| c.backend).collect();
    backends.sort_unstable();
    backends
}
