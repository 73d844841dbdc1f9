//! What kube-proxy has opened before kproxy came: netfilter translates it until it ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tracing::{debug, info, warn};

use super::shared::SharedDataplane;
use crate::errors::with_causes;
use crate::node::ctnetlink::Conntrack;

/// The connections of kube-proxy's; clones know of the same ones.
#[derive(Clone)]
pub(super) struct KubeProxy {
    dataplane: SharedDataplane,
    /// How many there were at the last look.
    left: Arc<AtomicUsize>,
}

impl KubeProxy {
    pub(super) fn new(dataplane: SharedDataplane) -> Self {
        Self { dataplane, left: Arc::default() }
    }

    /// Looks again as long as there are any: the kernel tells which have ended.
    pub(super) fn follow(&self) {
        if self.left.load(Ordering::Relaxed) > 0 {
            self.look();
        }
    }

    /// Has the programs leave to netfilter what it translates to a frontend, and take none of its source ports. How many
    /// connections those are.
    pub(super) fn look(&self) -> usize {
        let tracked = match Conntrack::open().and_then(|conntrack| conntrack.translated()) {
            Ok(tracked) => tracked,
            // Where nothing tracks connections there are none.
            Err(error) => {
                debug!(%error, "cannot read netfilter's connections");
                return 0;
            }
        };
        let left = match self.dataplane.lock().leave_to_netfilter(&tracked) {
            Ok(left) => left,
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot tell kube-proxy's connections from new ones");
                return 0;
            }
        };
        let before = self.left.swap(left, Ordering::Relaxed);
        match (before, left) {
            (0, 1..) => info!(connections = left, "kube-proxy's connections go on by netfilter"),
            (1.., 0) => info!("the last connection of kube-proxy's has ended"),
            _ => {}
        }
        left
    }
}
