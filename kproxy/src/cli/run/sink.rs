//! The kernel's data path as the control loop's sink, and what must be done beside the loop:
//! following devices, sweeping flows and closing sockets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kproxy_common::config::config_flags;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use super::snat::SourceNat;
use super::{fragments, opt_out, sockets};
use crate::cli::args::SocketLb;
use crate::control::DataplaneSink;
use crate::dataplane::{Dataplane, Report};
use crate::errors::with_causes;
use crate::metrics;
use crate::model::Problem;
use crate::node::NodeState;
use crate::plan::{Change, OptOut, Protocol, ServicePortPlan};
use crate::source::Event;

/// Time between two sweeps of the flow table: shorter than the shortest idle time.
const SWEEP: Duration = Duration::from_secs(5);
/// Time between two looks whether a pod-facing port waits: TCP tries again after a second (RFC 6298
/// section 2.1).
const LOOK: Duration = Duration::from_millis(200);
/// A sweep of a very large table is followed by a pause of so many times its own length, so that
/// it never takes more than a few percent of a CPU.
const REST: u32 = 20;

/// The data path, shared with the tasks beside the loop.
pub(super) struct KernelSink {
    dataplane: Arc<Mutex<Dataplane>>,
    node: watch::Receiver<NodeState>,
    snat: SourceNat,
    socket_lb: SocketLb,
    opt_out: OptOut,
    /// Takes the pods that are opted out to the task that looks for them.
    pods: watch::Sender<opt_out::Pods>,
    table: Arc<watch::Sender<Option<bool>>>,
    counts: metrics::Sweep,
    events: mpsc::Sender<Event>,
    /// Wakes the task that closes sockets of backends that are gone.
    stale: Arc<Notify>,
}

impl KernelSink {
    /// `table` is told whether the nftables table is needed; `events` takes the problems of devices
    /// to the control loop.
    #[expect(clippy::too_many_arguments, reason = "the pieces that `run` puts together")]
    pub(super) fn new(
        dataplane: Dataplane,
        node: watch::Receiver<NodeState>,
        snat: SourceNat,
        socket_lb: SocketLb,
        opt_out: OptOut,
        table: watch::Sender<Option<bool>>,
        counts: metrics::Sweep,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let dataplane = Arc::new(Mutex::new(dataplane));
        let stale = Arc::new(Notify::new());
        let (pods, table) = (watch::Sender::default(), Arc::new(table));
        Self { dataplane, node, snat, socket_lb, opt_out, pods, table, counts, events, stale }
    }

    fn dataplane(&self) -> MutexGuard<'_, Dataplane> {
        lock(&self.dataplane)
    }
}

/// A panic elsewhere leaves the maps as they are, which is how a restart finds them too.
pub(super) fn lock(dataplane: &Mutex<Dataplane>) -> MutexGuard<'_, Dataplane> {
    dataplane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DataplaneSink for KernelSink {
    fn reconcile(&mut self, desired: Vec<ServicePortPlan>) -> Report {
        let report = self.dataplane().reconcile(desired);
        sweep(&self.dataplane, &self.table, &self.counts);
        self.stale.notify_one();
        report
    }

    fn apply(&mut self, changes: Vec<Change>) -> Report {
        let udp = changes.iter().any(|change| change.id().protocol == Protocol::Udp);
        let report = self.dataplane().apply(changes);
        if udp {
            sweep(&self.dataplane, &self.table, &self.counts);
            self.stale.notify_one();
        }
        report
    }

    fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        self.dataplane().set_node_addresses(addresses)
    }

    fn set_service_ranges(&mut self, ranges: &[IpNet]) -> Report {
        self.dataplane().set_service_ranges(ranges)
    }

    fn set_opted_out_pods(&mut self, pods: Vec<BTreeSet<IpAddr>>) {
        self.pods.send_replace(Some(pods));
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        // What is attached to below is what the follower begins with: a change in between is news.
        let node = self.node.borrow_and_update().clone();
        if !self.opt_out.is_empty() {
            // First who takes care of those whom the sockets' programs will leave alone. What this reports
            // is reported again below.
            serve(&mut self.dataplane(), &self.snat, &self.table, &node);
            self.dataplane().change_config(|config| config.flags |= config_flags::OPT_OUT);
        }
        let by_packets = self.socket_lb == SocketLb::None;
        if !by_packets {
            self.dataplane().attach_cgroup()?;
        }
        // Neither before the hooks are there nor after they have gone: no connection falls between.
        self.dataplane().change_config(|config| {
            config.flags &= !config_flags::NODE_PACKETS;
            config.flags |= if by_packets { config_flags::NODE_PACKETS } else { 0 };
        });
        tokio::spawn(follow_devices(
            Arc::clone(&self.dataplane),
            self.node.clone(),
            node.clone(),
            self.snat.clone(),
            Arc::clone(&self.table),
            self.events.clone(),
        ));
        tokio::spawn(open_pod_flows(Arc::clone(&self.dataplane), self.events.clone()));
        tokio::spawn(sweep_always(
            Arc::clone(&self.dataplane),
            Arc::clone(&self.table),
            self.counts.clone(),
        ));
        tokio::spawn(sockets::close_stale(
            Arc::clone(&self.dataplane),
            Arc::clone(&self.stale),
            self.counts.clone(),
            self.events.clone(),
        ));
        if let Some(problem) = fragments::start(&self.dataplane) {
            let events = self.events.clone();
            tokio::spawn(async move { tell(&events, "fragments", vec![problem]).await });
        }
        if !self.opt_out.is_empty() {
            tokio::spawn(opt_out::follow(
                self.opt_out.clone(),
                Arc::clone(&self.dataplane),
                self.node.clone(),
                self.pods.subscribe(),
                self.events.clone(),
            ));
        }
        let problems = serve(&mut self.dataplane(), &self.snat, &self.table, &node);
        if by_packets && self.dataplane().detach_cgroup()? {
            info!("the programs are off the cgroup: packets of sockets are translated now");
        }
        if problems.is_empty() {
            return Ok(());
        }
        // One device that refuses the programs must not stop the others, nor the daemon.
        let events = self.events.clone();
        tokio::spawn(async move { tell(&events, "devices", problems).await });
        Ok(())
    }
}

/// Attaches to devices that come and forgets those that go.
async fn follow_devices(
    dataplane: Arc<Mutex<Dataplane>>,
    mut node: watch::Receiver<NodeState>,
    attached: NodeState,
    snat: SourceNat,
    table: Arc<watch::Sender<Option<bool>>>,
    events: mpsc::Sender<Event>,
) {
    // Addresses go to the control loop.
    let without_addresses = |mut state: NodeState| {
        state.addresses.clear();
        state
    };
    let mut known = without_addresses(attached);
    while node.changed().await.is_ok() {
        let now = without_addresses(node.borrow_and_update().clone());
        if now == known {
            continue;
        }
        known = now;
        let problems = serve(&mut lock(&dataplane), &snat, &table, &known);
        tell(&events, "devices", problems).await;
    }
}

/// Serves the devices of the node as it is now; everything that is wrong with them.
fn serve(
    dataplane: &mut Dataplane,
    snat: &SourceNat,
    table: &watch::Sender<Option<bool>>,
    node: &NodeState,
) -> Vec<Problem> {
    // A connection that comes in by a new device must find its source.
    let mut problems = snat.apply(dataplane, node).problems;
    problems.extend(dataplane.sync_devices(&node.devices, &node.pods).problems);
    problems.extend(node.problems.iter().cloned());
    tell_need(dataplane, table);
    problems
}

/// Attaches what translates answers to pods once a pod-facing port waits for it.
async fn open_pod_flows(dataplane: Arc<Mutex<Dataplane>>, events: mpsc::Sender<Event>) {
    while !lock(&dataplane).has_pending_pod_flows() {
        if lock(&dataplane).answers_pods() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    info!("a pod's own packets dial a Service: attaching what translates their answers");
    let problems = lock(&dataplane).open_pod_flows().problems;
    tell(&events, "pod-facing ports", problems).await;
}

fn tell_need(dataplane: &mut Dataplane, table: &watch::Sender<Option<bool>>) {
    let needed = dataplane.needs_netfilter();
    table.send_if_modified(|old| std::mem::replace(old, needed) != needed);
}

/// Tells the control loop all problems of `origin`.
pub(super) async fn tell(events: &mpsc::Sender<Event>, origin: &str, problems: Vec<Problem>) {
    let standing = Event::Standing { origin: origin.into(), problems };
    // The loop has ended: so will this task.
    let _ended = events.send(standing).await;
}

async fn sweep_always(
    dataplane: Arc<Mutex<Dataplane>>,
    table: Arc<watch::Sender<Option<bool>>>,
    counts: metrics::Sweep,
) {
    let mut pause = SWEEP;
    loop {
        tokio::time::sleep(pause).await;
        let start = Instant::now();
        sweep(&dataplane, &table, &counts);
        pause = SWEEP.max(start.elapsed() * REST);
    }
}

fn sweep(
    dataplane: &Mutex<Dataplane>,
    table: &watch::Sender<Option<bool>>,
    counts: &metrics::Sweep,
) {
    let mut dataplane = lock(dataplane);
    let start = Instant::now();
    let swept = dataplane.sweep();
    let took = start.elapsed();
    tell_need(&mut dataplane, table);
    counts.set_usage(&dataplane.usage());
    match swept {
        Ok(report) => {
            counts.swept(&report, took);
            if report.removed > 0 {
                debug!(entries = report.entries, removed = report.removed, "swept flows");
            }
        }
        Err(error) => {
            let error = with_causes(&error);
            warn!(error, "cannot sweep the flow table; trying again");
        }
    }
}
