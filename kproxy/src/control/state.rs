//! What the loop tells the servers beside it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::plan::HealthChecks;

/// How long a change may wait before kproxy calls itself ill (HZ-03: twice kube-proxy's sync
/// period).
const ILL_AFTER: Duration = Duration::from_secs(60);

/// The state of the loop. Receivers are woken for everything but the two times.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    /// Services that load balancers ask this node about, as the data path has them.
    pub health_checks: HealthChecks,
    /// Addresses to answer on.
    pub listen: BTreeSet<IpAddr>,
    /// Since when a change waits for the data path.
    pub behind_since: Option<Instant>,
    /// When the data path was last brought in step; `None`: not yet in this run.
    pub last_synced: Option<Timestamp>,
    /// The own Node is there to stay (HZ-06).
    pub node_eligible: bool,
}

impl State {
    /// Whether the data path follows the cluster.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        self.behind_since.is_none_or(|since| now.saturating_duration_since(since) < ILL_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hcn_03_kproxy_is_ill_once_a_change_has_waited_a_minute() {
        let now = Instant::now();
        let mut state = State::default();
        assert!(state.is_healthy(now + Duration::from_secs(3600)));
        state.behind_since = Some(now);
        assert!(state.is_healthy(now + Duration::from_secs(59)));
        assert!(!state.is_healthy(now + Duration::from_secs(60)));
    }
}
