//! The plan as a daemon with these settings would make it now, without a data path: for `kproxy verify` and
//! `kproxy diff`. Reads the source and the node, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Fuse, LocalBoxFuture};
use kproxy_common::config::{Config, Uplink};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::settings::{Settings, SocketLb};
use super::source_nat::{self, SourcePorts};
use super::timeouts::Timeouts;
use super::told::Told;
use crate::control::Planner;
use crate::dataplane;
use crate::metrics::Metrics;
use crate::model::{Problem, Service, ServiceName};
use crate::node::{NodeState, Served, cgroup, watch as node_watch};
use crate::plan::{Change, OptOut, ServicePortPlan};
use crate::source::{Event, Update};

/// Longest wait for the source.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may go on after a first problem of its own: the API server does not answer, most likely.
const AFTER_PROBLEM: Duration = Duration::from_secs(3);
/// How long the own Node may come after the rest.
const NODE_GRACE: Duration = Duration::from_secs(3);

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlan {
    /// The source has not told everything in time.
    #[error("Services and EndpointSlices were not to be had in {} seconds{}", waited.as_secs(), told(problems))]
    Late {
        /// How long.
        waited: Duration,
        /// What the source has said of itself.
        problems: Vec<Problem>,
    },
    /// The settings, the node or the source cannot be used.
    #[error(transparent)]
    Unusable(#[from] Box<Error>),
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("; {problem}")).collect()
}

impl From<Error> for NoPlan {
    fn from(error: Error) -> Self {
        Self::Unusable(Box::new(error))
    }
}

/// A source that is read, and what is planned from it.
pub(crate) struct Fresh {
    runtime: Runtime,
    planner: Planner,
    events: mpsc::Receiver<Event>,
    feeding: Fuse<LocalBoxFuture<'static, Result<(), Error>>>,
    node: watch::Receiver<NodeState>,
    source_ports: SourcePorts,
    timeouts: Timeouts,
    told: Told,
    cgroup: Option<u64>,
    problems: BTreeMap<String, Vec<Problem>>,
    /// Ends the source with this.
    shutdown: CancellationToken,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What should be in the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Service ports.
    pub plans: Vec<ServicePortPlan>,
    /// Addresses on which NodePorts answer.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The node as it is.
    pub node: NodeState,
    /// What the programs are told.
    pub config: Config,
    /// Source addresses by device.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// Kernel id of the cgroup whose sockets are served; `None`: none is.
    pub cgroup: Option<u64>,
    /// Whether pods' own packets are translated from the start.
    pub answers_pods: bool,
    /// Whether everything could be read; where not, what an earlier run has left stays.
    pub is_whole: bool,
    /// What of the objects cannot be used.
    pub problems: Vec<Problem>,
}

impl Fresh {
    /// Reads the source of these settings. `served`: devices that have programs.
    ///
    /// # Errors
    /// Something cannot be used, or does not answer.
    pub(crate) fn read(settings: Settings, served: Served) -> Result<Self, NoPlan> {
        let mut fresh = Self::begin(settings, served, true)?;
        fresh.wait_for_all()?;
        Ok(fresh)
    }

    /// As if the source of these settings held nothing.
    ///
    /// # Errors
    /// Something cannot be used.
    pub(crate) fn empty(settings: Settings, served: Served) -> Result<Self, NoPlan> {
        let mut fresh = Self::begin(settings, served, false)?;
        fresh.planner.handle(Event::Services(Update::Reset(Vec::new())));
        fresh.planner.handle(Event::Slices(Update::Reset(Vec::new())));
        Ok(fresh)
    }

    fn begin(settings: Settings, served: Served, reads: bool) -> Result<Self, NoPlan> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let metrics = Metrics::new().map_err(Error::Metrics)?;
        let planner = Planner::of(&super::control_settings(&settings, metrics.control));
        let (mut socket_lb, mut opt_out) = (settings.socket_lb, settings.opt_out);
        let root = settings.dataplane.cgroup_root.as_deref();
        if super::without_cgroup(socket_lb, root)?.is_some() {
            (socket_lb, opt_out) = (SocketLb::None, OptOut::default());
        }
        let told = Told::of(settings.cluster_cidrs, socket_lb, &opt_out)?;
        let cgroup = if told.serves_sockets() {
            cgroup::id(&cgroup::root(root).map_err(Error::from)?)
        } else {
            None
        };
        let follow = node_watch::follow(settings.devices, served);
        let node = runtime.block_on(follow).map_err(Error::from)?;
        let (sender, events) = mpsc::channel(super::EVENTS);
        let shutdown = CancellationToken::new();
        let feeding = if reads {
            let namespaces = opt_out.namespaces.clone();
            let (source, node_name) = (settings.source, settings.node_name);
            super::feed(source, node_name, namespaces, sender, shutdown.clone())
        } else {
            std::future::pending().boxed_local()
        };
        Ok(Self {
            runtime,
            planner,
            events,
            feeding: feeding.fuse(),
            node,
            source_ports: SourcePorts::choose(settings.source_nat).map_err(Error::SourcePorts)?,
            timeouts: Timeouts::new(settings.flow_timeouts, settings.run_dir),
            told,
            cgroup,
            problems: BTreeMap::new(),
            shutdown,
        })
    }

    fn wait_for_all(&mut self) -> Result<(), NoPlan> {
        let begin = Instant::now();
        let mut end = begin + PATIENCE;
        while !self.planner.is_complete() {
            if !self.take(end)? {
                let problems = self.problems.values().flatten().cloned().collect();
                return Err(NoPlan::Late { waited: begin.elapsed(), problems });
            }
            if self.problems.keys().any(|origin| origin.starts_with("API server")) {
                end = end.min(Instant::now() + AFTER_PROBLEM);
            }
        }
        let end = Instant::now() + NODE_GRACE;
        while !self.planner.knows_node() && self.take(end)? {}
        Ok(())
    }

    /// Takes what the source tells for so long.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn follow(&mut self, time: Duration) -> Result<(), NoPlan> {
        let end = Instant::now() + time;
        while self.take(end)? {}
        Ok(())
    }

    /// Waits for an event. Whether one came before `end`.
    fn take(&mut self, end: Instant) -> Result<bool, NoPlan> {
        let Self { runtime, events, feeding, .. } = self;
        let event = runtime.block_on(async {
            timeout_at(end, async {
                tokio::select! {
                    biased;
                    Some(event) = events.recv() => Ok(event),
                    ended = feeding => Err(ended.err().unwrap_or(Error::SourceEnded)),
                }
            })
            .await
        });
        match event {
            Err(_) => Ok(false),
            Ok(event) => {
                let event = event?;
                if let Event::Problems { origin, problems } = &event {
                    if problems.is_empty() {
                        self.problems.remove(origin);
                    } else {
                        self.problems.insert(origin.clone(), problems.clone());
                    }
                }
                self.planner.handle(event);
                Ok(true)
            }
        }
    }

    /// A Service of the source.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.planner.service(name)
    }

    /// Takes objects as if they came from the source, and answers what changes in the plan.
    pub(crate) fn overlay(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Change> {
        self.look_at_node();
        self.planner.take_changes();
        events.into_iter().for_each(|event| self.planner.handle(event));
        self.planner.take_changes()
    }

    fn look_at_node(&mut self) {
        let addresses = self.node.borrow_and_update().addresses.clone();
        self.planner.set_local_addresses(addresses);
    }

    /// What should be in the kernel now. `held`: what the programs are told, of which the settings say only a part.
    pub(crate) fn planned(&mut self, held: &Config) -> Planned {
        self.look_at_node();
        self.planner.take_changes();
        let node = self.node.borrow().clone();
        let mut config = *held;
        self.told.fill_attached(&mut config);
        config.timeouts = self.timeouts.seconds();
        self.source_ports.fill(&mut config, &node);
        if let Some(ranges) = self.planner.service_ranges() {
            config.service = dataplane::service_ranges(&ranges);
        }
        Planned {
            plans: self.planner.plans(),
            node_addresses: self.planner.node_port_addresses(),
            config,
            uplinks: source_nat::uplinks(&node),
            node,
            cgroup: self.cgroup,
            answers_pods: self.told.answers_pods(),
            is_whole: !self.planner.has_unread(),
            problems: self.planner.problems().current().into_iter().collect(),
        }
    }
}
