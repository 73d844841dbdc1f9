//! The loop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant as Clock};

use backon::ExponentialBackoff;
use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::errors::with_causes;
use crate::metrics::{self, Pass};
use crate::model::Family;
use crate::plan::{Change, NoLocalEndpoints, Policy, ServicePortPlan};
use crate::source::{self, Update};
use crate::timing;

use super::error::Error;
use super::inputs::{Event, Inputs};
use super::planner::Planner;
use super::problems;
use super::settings::Settings;
use super::sink::{DataplaneSink, Report};

/// How long the first plan waits for the own Node once both lists are there: without it the zone
/// is unknown, and the plan would change again a moment later.
const NODE_GRACE: Duration = Duration::from_secs(3);
/// First and longest pause before everything is tried again after a failed step.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Runs until `shutdown` is cancelled. The data path is left as it is.
///
/// `addresses` holds the addresses bound to this node's devices; its first value counts at once,
/// so it should be true. When its sender is dropped, the last value stays.
///
/// Logs `in sync` once the first complete plan is in the data path and attached.
///
/// # Errors
/// The source ended, or the data path could not be attached.
pub(crate) async fn run(
    settings: Settings,
    events: mpsc::Receiver<source::Event>,
    sink: impl DataplaneSink,
    addresses: watch::Receiver<BTreeSet<IpAddr>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let planner = Planner::of(&settings);
    let notices = settings.noticeboard.watch();
    let repairs = settings.repairs.clone();
    let mut inputs =
        Inputs { events, addresses, addresses_ended: false, notices, repairs, shutdown };
    let mut control = Loop {
        settings,
        planner,
        sink,
        no_local_endpoints: NoLocalEndpoints::default(),
        started: micros_since_1970(),
        in_sync: false,
        exact: false,
        addresses: BTreeSet::new(),
        service_ranges: None,
        opted_out_pods: None,
        listed: false,
        flush_at: None,
        retry_at: None,
        pauses: timing::backoff(RETRY),
        problems_written: false,
        write_failed: false,
    };
    control.planner.set_local_addresses(inputs.addresses.borrow_and_update().clone());
    control.planner.problems().set_notices(&inputs.notices.borrow_and_update());
    control.publish_problems();
    loop {
        match inputs.next(control.flush_at, control.retry_at).await {
            Event::Source(event) => {
                control.count(&event);
                control.planner.handle(event);
                control.schedule();
            }
            Event::Addresses(addresses) => {
                control.planner.set_local_addresses(addresses);
                control.schedule();
            }
            Event::Notices(notices) => {
                control.planner.problems().set_notices(&notices);
                control.publish_problems();
            }
            Event::Repair => control.repair(),
            Event::Flush => control.flush()?,
            Event::Retry => {
                let start = Clock::now();
                control.retry();
                control.count_pass(Pass::Full, start);
            }
            Event::SourceEnded => return Err(Error::SourceEnded),
            Event::Stop => return Ok(()),
        }
    }
}

struct Loop<S> {
    settings: Settings,
    planner: Planner,
    sink: S,
    no_local_endpoints: NoLocalEndpoints,
    /// When the loop began, in microseconds since 1970.
    started: i64,
    /// The first plan is in the data path.
    in_sync: bool,
    /// The data path holds nothing but the plan: what an earlier run left has been removed.
    exact: bool,
    /// Addresses that the data path was given for NodePorts.
    addresses: BTreeSet<IpAddr>,
    /// Ranges of ClusterIPs that it was given.
    service_ranges: Option<Vec<IpNet>>,
    /// Pods that it was told are opted out.
    opted_out_pods: Option<Vec<BTreeSet<IpAddr>>>,
    /// Both lists were complete while the Node was not known, so the wait for it has begun.
    listed: bool,
    flush_at: Option<Instant>,
    retry_at: Option<Instant>,
    pauses: ExponentialBackoff,
    problems_written: bool,
    write_failed: bool,
}

impl<S: DataplaneSink> Loop<S> {
    /// Sets the time of the next flush. The first event of a burst decides, later ones do not
    /// put it off.
    fn schedule(&mut self) {
        self.settings.metrics.queued();
        let now = Instant::now();
        self.settings.state.send_if_modified(|state| {
            state.behind_since.get_or_insert(now);
            false
        });
        if self.in_sync || !self.planner.is_complete() || self.planner.knows_node() {
            let soon = now + self.settings.collect;
            self.flush_at = Some(self.flush_at.map_or(soon, |at| at.min(soon)));
        } else if !std::mem::replace(&mut self.listed, true) {
            self.flush_at = Some(now + NODE_GRACE);
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.flush_at = None;
        if !self.planner.is_complete() {
            self.publish_problems();
            return Ok(());
        }
        let start = Clock::now();
        let changes = self.planner.take_changes();
        changes.iter().for_each(|change| self.no_local_endpoints.update(change));
        let pass = if !self.in_sync {
            self.first_sync()?;
            Pass::Full
        } else if !self.exact && !self.planner.has_unread() {
            self.retry();
            Pass::Full
        } else {
            self.sync_addresses();
            self.apply(changes);
            self.sync_service_ranges();
            self.sync_opted_out_pods();
            Pass::Partial
        };
        self.count_pass(pass, start);
        self.publish_state();
        self.publish_problems();
        self.schedule_retry();
        Ok(())
    }

    /// Counts what has come.
    fn count(&self, event: &source::Event) {
        let (change, count) = match event {
            source::Event::Services(update) => (metrics::Change::Service, objects(update)),
            source::Event::Slices(update) => (metrics::Change::Endpoints, objects(update)),
            source::Event::Stale(since) => return self.settings.metrics.set_stale(*since),
            _ => return,
        };
        self.settings.metrics.changed(change, count);
    }

    /// Counts a pass that is over, and what it has brought into force.
    fn count_pass(&mut self, pass: Pass, start: Clock) {
        let metrics = &self.settings.metrics;
        metrics.synced(pass, start.elapsed());
        let now = micros_since_1970();
        for (family, at) in self.planner.take_triggers() {
            // Changes from before the start waited for kproxy, not for its work (EPS-20).
            if at > self.started {
                let took = u64::try_from(now - at).unwrap_or(0);
                metrics.programmed(family, Duration::from_micros(took));
            }
        }
        for policy in Policy::ALL {
            for family in [Family::V4, Family::V6] {
                let count = self.no_local_endpoints.count(policy, family);
                metrics.set_no_local_endpoints(policy, family, count);
            }
        }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            let objects = changes.iter().map(service_text).collect();
            let count = changes.len();
            let Report { writes, words, problems, .. } = self.counted(|sink| sink.apply(changes));
            debug!(changes = count, writes, words, "applied");
            self.planner.problems().set_sink(Some(&objects), problems);
        }
    }

    fn first_sync(&mut self) -> Result<(), Error> {
        let mut total = self.sync_node_addresses();
        let plans = self.planner.plans();
        let (services, backends) = size(&plans);
        let report = self.sync(plans);
        total.writes += report.writes;
        total.problems.extend(report.problems);
        self.planner.problems().set_sink(None, total.problems);
        self.sync_service_ranges();
        self.sync_opted_out_pods();
        self.sink.attach()?;
        self.in_sync = true;
        info!(services, backends, writes = total.writes, "in sync");
        Ok(())
    }

    /// Everything that is planned. As long as something has never been readable, what an earlier
    /// run has left stays: it may be just that.
    fn sync(&mut self, plans: Vec<ServicePortPlan>) -> Report {
        if !self.exact && self.planner.has_unread() {
            return self.counted(|sink| sink.apply(plans.into_iter().map(Change::Set).collect()));
        }
        self.exact = true;
        self.counted(|sink| sink.reconcile(plans))
    }

    fn sync_node_addresses(&mut self) -> Report {
        self.addresses = self.planner.node_port_addresses();
        let addresses = self.addresses.clone();
        self.counted(|sink| sink.set_node_addresses(&addresses))
    }

    /// Does something to the data path, and counts what that has changed.
    fn counted(&mut self, act: impl FnOnce(&mut S) -> Report) -> Report {
        let report = act(&mut self.sink);
        self.settings.metrics.wrote(report.writes + report.words);
        if let Some(room_in) = report.room_in {
            // What waits for it may be all that a Service has.
            let at = Instant::now() + room_in;
            self.retry_at = Some(self.retry_at.map_or(at, |before| before.min(at)));
        }
        report
    }

    fn sync_addresses(&mut self) {
        if self.planner.node_port_addresses() == self.addresses {
            return;
        }
        let report = self.sync_node_addresses();
        debug!(writes = report.writes, "addresses of NodePorts changed");
        let objects = report.problems.iter().map(|problem| problem.object.clone()).collect();
        self.planner.problems().set_sink(Some(&objects), report.problems);
    }

    /// After the frontends: an address that a Service has just been given is no longer free.
    fn sync_service_ranges(&mut self) {
        let ranges = self.planner.service_ranges();
        if ranges == self.service_ranges {
            return;
        }
        if let Some(ranges) = &ranges {
            let report = self.counted(|sink| sink.set_service_ranges(ranges));
            debug!(?ranges, writes = report.writes, "ranges of ClusterIPs changed");
        }
        self.service_ranges = ranges;
    }

    fn sync_opted_out_pods(&mut self) {
        let pods = self.planner.opted_out_pods();
        if pods == self.opted_out_pods {
            return;
        }
        if let Some(pods) = &pods {
            debug!(pods = pods.len(), "pods that are opted out by their namespace changed");
            self.sink.set_opted_out_pods(pods.clone());
        }
        self.opted_out_pods = pods;
    }

    /// Tells the servers what the data path now does.
    fn publish_state(&self) {
        let (health_checks, listen) =
            (self.planner.health_checks(), self.planner.listen_addresses());
        let node_eligible = self.planner.node_stays().unwrap_or(!self.settings.needs_node);
        self.settings.state.send_if_modified(|state| {
            state.behind_since = None;
            state.last_synced = Some(Timestamp::now());
            let changed = state.health_checks != *health_checks
                || state.listen != listen
                || state.node_eligible != node_eligible;
            if changed {
                state.health_checks.clone_from(health_checks);
                state.listen = listen;
                state.node_eligible = node_eligible;
            }
            changed
        });
    }

    /// Everything again, with the eyes of somebody who has just come.
    fn repair(&mut self) {
        if !self.in_sync {
            return self.settings.repairs.answer(None);
        }
        let start = Clock::now();
        let report = self.counted(DataplaneSink::reread);
        let writes = report.writes + self.retry();
        if let Some(ranges) = self.service_ranges.clone() {
            self.counted(|sink| sink.set_service_ranges(&ranges));
        }
        let objects = report.problems.iter().map(|problem| problem.object.clone()).collect();
        self.planner.problems().set_sink(Some(&objects), report.problems);
        self.publish_problems();
        self.schedule_retry();
        self.count_pass(Pass::Full, start);
        info!(writes, "looked at the kernel again, as somebody has asked");
        self.settings.repairs.answer(Some(writes));
    }

    /// Everything again, because a step left something undone. How much was written.
    fn retry(&mut self) -> usize {
        self.retry_at = None;
        let Report { writes: before, mut problems, .. } = self.sync_node_addresses();
        let plans = self.planner.plans();
        let report = self.sync(plans);
        problems.extend(report.problems);
        let writes = before + report.writes + report.words;
        debug!(writes, problems = problems.len(), "tried everything again");
        self.planner.problems().set_sink(None, problems);
        self.publish_problems();
        self.schedule_retry();
        writes
    }

    fn schedule_retry(&mut self) {
        if !self.planner.problems().has_sink_problems() {
            self.retry_at = None;
            self.pauses = timing::backoff(RETRY);
        } else if self.retry_at.is_none() {
            self.retry_at = self.pauses.next().map(|pause| Instant::now() + pause);
        }
    }

    fn publish_problems(&mut self) {
        let news = self.planner.problems().take_news();
        news.log();
        if news.is_empty() && self.problems_written {
            return;
        }
        let current = self.planner.problems().current();
        self.settings.metrics.set_problems(current.len());
        match problems::write(&self.settings.run_dir, &current) {
            Ok(()) => {
                self.problems_written = true;
                self.write_failed = false;
            }
            Err(error) => {
                self.problems_written = false;
                if !std::mem::replace(&mut self.write_failed, true) {
                    warn!("{}", with_causes(&error));
                }
            }
        }
    }
}

/// The clock of [`Planner::take_triggers`].
fn micros_since_1970() -> i64 {
    i64::try_from(timing::since_1970().as_micros()).unwrap_or(i64::MAX)
}

/// Objects that an update is about.
const fn objects<T: source::Object>(update: &Update<T>) -> usize {
    match update {
        Update::Reset(list) => list.len(),
        Update::Apply(_) | Update::Delete(_) => 1,
    }
}

/// As problems about a Service name it.
fn service_text(change: &Change) -> String {
    let id = change.id();
    format!("Service {}/{}", id.namespace, id.name)
}

/// Services and backends of a plan.
fn size(plans: &[ServicePortPlan]) -> (usize, usize) {
    let services: BTreeSet<_> =
        plans.iter().map(|plan| (&plan.id.namespace, &plan.id.name)).collect();
    let backends = plans.iter().map(|plan| {
        let local = plan.local.as_ref().map_or(0, |set| set.backends.len());
        plan.cluster.backends.len().max(local)
    });
    (services.len(), backends.sum())
}
