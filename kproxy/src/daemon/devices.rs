//! Serves the devices of the node as they come and go, beside the control loop.

use std::time::Duration;

use tokio::sync::watch;
use tracing::info;

use super::netfilter::Need;
use super::shared::SharedDataplane;
use super::source_nat::SourcePorts;
use crate::control::Noticeboard;
use crate::model::Problem;
use crate::node::NodeState;

/// Time between two looks whether a pod-facing port waits: TCP tries again after a second (RFC 6298
/// section 2.1).
const LOOK: Duration = Duration::from_millis(200);
/// Where the problems of devices are posted.
pub(super) const ORIGIN: &str = "devices";

/// What is done for devices.
#[derive(Clone)]
pub(super) struct Devices {
    pub(super) dataplane: SharedDataplane,
    pub(super) node: watch::Receiver<NodeState>,
    pub(super) source_ports: SourcePorts,
    pub(super) table: Need,
}

impl Devices {
    /// Serves the devices of the node as it is in `node`; everything that is wrong with them.
    pub(super) fn serve(&self, node: &NodeState) -> Vec<Problem> {
        let mut dataplane = self.dataplane.lock();
        // A connection that comes in by a new device must find its source.
        let mut problems = self.source_ports.apply(&mut dataplane, node).problems;
        problems.extend(dataplane.sync_devices(&node.devices, &node.pods).problems);
        problems.extend(node.problems.iter().cloned());
        self.table.update(&mut dataplane);
        problems
    }

    /// Attaches to devices that come and forgets those that go; `served` are those that are served.
    pub(super) async fn follow(mut self, served: NodeState, notices: Noticeboard) {
        // Addresses go to the control loop.
        let without_addresses = |mut state: NodeState| {
            state.addresses.clear();
            state
        };
        let mut known = without_addresses(served);
        while self.node.changed().await.is_ok() {
            let now = without_addresses(self.node.borrow_and_update().clone());
            if now == known {
                continue;
            }
            known = now;
            notices.post(ORIGIN, self.serve(&known));
        }
    }

    /// Attaches what translates answers to pods once a pod-facing port waits for it.
    pub(super) async fn open_pod_flows(self, notices: Noticeboard) {
        while !self.dataplane.lock().has_pending_pod_flows() {
            if self.dataplane.lock().answers_pods() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        info!("a pod's own packets dial a Service: attaching what translates their answers");
        let problems = self.dataplane.lock().open_pod_flows().problems;
        notices.post("pod-facing ports", problems);
    }
}
