//! Serves the devices of the node as they come and go, beside the control loop.

use std::time::Duration;

use tokio::sync::watch;
use tracing::info;

use super::netfilter::Need;
use super::pins::PinWatch;
use super::shared::SharedDataplane;
use super::source_nat::SourcePorts;
use crate::control::Noticeboard;
use crate::model::Problem;
use crate::node::{NodeState, forwarding};
use crate::timing;

/// Time between two looks whether a pod-facing port waits: TCP tries again after a second (RFC 6298
/// section 2.1).
const LOOK: Duration = Duration::from_millis(200);
/// Time between two looks whether everything is still attached.
const CHECK: Duration = Duration::from_secs(15);
/// How long to wait for further pins that are taken away.
const SETTLE: Duration = Duration::from_millis(20);
/// Shortest and longest pause before attaching is tried again.
const RETRY: [Duration; 2] = [Duration::from_secs(1), CHECK];
/// Where the problems of devices are posted.
pub(super) const ORIGIN: &str = "devices";

/// What is wrong with devices.
struct Found {
    /// What may succeed when it is tried again.
    failures: Vec<Problem>,
    /// What lasts until the node changes.
    others: Vec<Problem>,
}

impl Found {
    fn all(self) -> Vec<Problem> {
        self.failures.into_iter().chain(self.others).collect()
    }
}

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
    pub(super) fn serve(&mut self, node: &NodeState) -> Vec<Problem> {
        self.try_serve(node).all()
    }

    fn try_serve(&mut self, node: &NodeState) -> Found {
        let mut others: Vec<_> = self.source_ports.follow().into_iter().collect();
        others.extend(node.problems.iter().cloned());
        if !node.pods.is_empty() {
            others.extend(forwarding::problems(node.families()));
        }
        let mut dataplane = self.dataplane.lock();
        let mut failures = dataplane.repair_pins().problems;
        // A connection that comes in by a new device must find its source.
        failures.extend(self.source_ports.apply(&mut dataplane, node).problems);
        failures.extend(dataplane.sync_devices(&node.devices, &node.pods).problems);
        failures.extend(dataplane.repair_cgroup().problems);
        self.table.update(&mut dataplane);
        Found { failures, others }
    }

    /// Attaches to devices that come and forgets those that go, attaches again what somebody has taken off,
    /// and tries again what failed; `served` are those that are served.
    pub(super) async fn follow(mut self, served: NodeState, notices: Noticeboard) {
        // Addresses go to the control loop.
        let without_addresses = |mut state: NodeState| {
            state.addresses.clear();
            state
        };
        let mut known = without_addresses(served);
        let mut pins = PinWatch::new();
        pins.follow(&self.dataplane.lock().pin_folders());
        // The first look may have failed.
        let mut pauses = Some(timing::backoff(RETRY));
        loop {
            let pause = pauses.as_mut().and_then(Iterator::next).unwrap_or(CHECK);
            tokio::select! {
                changed = self.node.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = without_addresses(self.node.borrow_and_update().clone());
                    if now == known {
                        continue;
                    }
                    known = now;
                }
                () = pins.taken() => {
                    // Who takes one takes several.
                    tokio::time::sleep(SETTLE).await;
                    pins.forget();
                }
                () = tokio::time::sleep(pause) => {}
            }
            let found = self.try_serve(&known);
            pins.follow(&self.dataplane.lock().pin_folders());
            if found.failures.is_empty() {
                pauses = None;
            } else {
                pauses.get_or_insert_with(|| timing::backoff(RETRY));
            }
            notices.post(ORIGIN, found.all());
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
