//! The daemon: puts the pieces together and runs what goes on beside the control loop.
//!
//! ```text
//! Settings ─▶ run ─▶ source ─▶ control ─▶ KernelSink ─▶ Dataplane ◀─ devices, sweeper, sockets,
//!                                │                                   fragments, opt_out
//!                                └─▶ server: health, probes, metrics      │
//!                                ◀──────── Noticeboard: problems ◀────────┴─ netfilter, conntrack, ipsec
//! ```
//!
//! Nothing here knows what was typed: `cli` makes [`Settings`] of it.

mod configz;
mod conntrack;
mod devices;
mod error;
mod fragments;
pub(crate) mod fresh;
mod ipsec;
mod kube_proxy;
mod netfilter;
mod opt_out;
mod pins;
pub(crate) mod run_dir;
mod settings;
mod shared;
mod signals;
mod sink;
mod sockets;
mod source_nat;
mod sweeper;
mod timeouts;
mod told;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::error::Error;
pub(crate) use self::run_dir::{RunDir, Started};
pub(crate) use self::settings::{ClusterCidrs, Conntrack, Settings, SocketLb, Source, SourceNat};

use self::devices::Devices;
use self::kube_proxy::KubeProxy;
use self::netfilter::{Need, Table};
use self::shared::SharedDataplane;
use self::sink::KernelSink;
use self::source_nat::SourcePorts;
use self::sweeper::Sweeper;
use self::timeouts::Timeouts;
use self::told::Told;
use crate::control::{self, Noticeboard, State};
use crate::dataplane::Dataplane;
use crate::metrics::{self, Metrics};
use crate::model::Problem;
use crate::node::{NodeState, capabilities, cgroup, watch as node_watch};
use crate::plan::{OptOut, SocketVerdicts};
use crate::server;
use crate::source::{self, Event};

/// Events on their way from the source: a burst fits, a flood waits.
const EVENTS: usize = 1024;

/// Runs until SIGTERM or SIGINT. The data path is left in place.
///
/// # Errors
/// The daemon cannot start (another one runs, a setting cannot be used, the kernel refuses), or the
/// source of Services has ended.
pub(crate) fn run(settings: Settings) -> Result<(), Error> {
    start(settings, false)
}

/// Does what [`run`] does until everything is in the data path and attached, and ends. Answers nobody
/// meanwhile but the probes.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_once(mut settings: Settings) -> Result<(), Error> {
    (settings.metrics_address, settings.healthz_address) = (None, None);
    start(settings, true)
}

fn start(settings: Settings, once: bool) -> Result<(), Error> {
    capabilities::check()?;
    // Before there are other threads, which would keep theirs.
    if let Err(error) = capabilities::keep_useful() {
        warn!(%error, "kproxy keeps capabilities that it does not need: the kernel does not let it give them up");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?
        .block_on(serve(settings, once))
}

/// Sets the kernel's connection tracking and nothing else: what a container with more rights does before the
/// daemon's (`--init-only`). What cannot be set is logged.
pub(crate) fn set_conntrack(settings: &Settings) {
    for problem in conntrack::set_once(&settings.conntrack) {
        warn!(%problem, "not set");
    }
    info!("the kernel's connection tracking is set; ending, as --init-only says");
}

/// `once`: until everything is in step.
async fn serve(settings: Settings, once: bool) -> Result<(), Error> {
    let config = configz::of(&settings);
    let metrics = Arc::new(Metrics::new().map_err(Error::Metrics)?);
    let mut control = control_settings(&settings, metrics.control.clone());
    let Settings {
        node_name,
        source,
        run_dir,
        dataplane,
        devices,
        cluster_cidrs,
        serve_external_ips: _,
        node_port_addresses: _,
        bind_address: _,
        mut socket_lb,
        mut opt_out,
        source_nat,
        flow_timeouts,
        algorithm: _,
        metrics_address,
        healthz_address,
        conntrack,
        config: _,
        started,
    } = settings;
    let _pid_file = run_dir.claim()?;
    run_dir.write_started(&started)?;
    let shutdown = CancellationToken::new();
    signals::stop_on_signals(shutdown.clone()).map_err(Error::Signals)?;

    let notices = Noticeboard::default();
    if let Some(problem) = without_cgroup(socket_lb, dataplane.cgroup_root.as_deref())? {
        warn!(%problem, "packets are translated instead of sockets");
        notices.post("cgroup", vec![problem]);
        (socket_lb, opt_out) = (SocketLb::None, OptOut::default());
    }
    // Before the times of flows are read, which follow it.
    tokio::spawn(conntrack::Keeper::start(&conntrack, notices.clone()).keep());
    let bpffs_root = dataplane.bpffs_root.clone();
    let map_limits = dataplane.map_limits();
    let mut dataplane = Dataplane::open(&dataplane)?;
    run_dir.write_map_limits(&map_limits)?;
    run_dir.write_opted_out(&opt_out)?;
    let told = Told::of(cluster_cidrs, socket_lb, &opt_out)?;
    configure(&mut dataplane, &told, &opt_out);
    let mut timeouts = Timeouts::new(flow_timeouts, run_dir.clone());
    timeouts.apply(&mut dataplane);
    let node = node_watch::follow(devices, dataplane.served()).await?;
    if node.borrow().devices.is_empty() {
        warn!("no device leads out of this node yet; NodePorts answer once there is one");
    }
    let addresses = addresses_of(node.clone());
    let source_ports = SourcePorts::choose(source_nat).map_err(Error::SourcePorts)?;
    // Before anything is attached; what this reports is reported again when the devices are.
    let _told_later = source_ports.apply(&mut dataplane, &node.borrow());
    let table = Need::of(&mut dataplane);
    tokio::spawn(Table::start(&table, notices.clone()).keep());
    control.noticeboard = notices.clone();
    let namespaces = opt_out.namespaces.clone();
    let dataplane = SharedDataplane::new(dataplane);
    let kube_proxy = KubeProxy::new(dataplane.clone());
    let sink = KernelSink {
        dataplane: dataplane.clone(),
        devices: Devices { dataplane: dataplane.clone(), node, source_ports, table: table.clone() },
        kube_proxy: kube_proxy.clone(),
        sweeper: Sweeper { dataplane, kube_proxy, table, counts: metrics.sweep.clone(), timeouts },
        socket_lb,
        told,
        opt_out,
        pods: watch::Sender::default(),
        stale: Arc::default(),
        notices: notices.clone(),
    };
    tokio::spawn(server::health_check::serve(control.state.subscribe(), notices.clone()));
    tokio::spawn(ipsec::watch(notices.clone()));
    let state = || control.state.subscribe();
    let repairs = control.repairs.clone();
    if once {
        tokio::spawn(stop_in_step(state(), shutdown.clone()));
    }
    tokio::spawn(server::probes::serve(run_dir.socket(), state(), repairs, notices.clone()));
    if let Some(address) = healthz_address {
        let counts = metrics.health.clone();
        tokio::spawn(server::health::serve(address, state(), counts, notices.clone()));
    }
    if let Some(address) = metrics_address {
        tokio::spawn(server::metrics::serve(address, metrics, bpffs_root, config, notices));
    }
    let (sender, events) = mpsc::channel(EVENTS);
    let feeding = feed(source, node_name, namespaces, sender, shutdown.clone());
    let result = tokio::select! {
        result = control::run(control, events, sink, addresses, shutdown.clone()) => result.map_err(Error::from),
        result = feeding => result,
    };
    let asked = shutdown.is_cancelled();
    shutdown.cancel();
    result?;
    if !asked {
        return Err(Error::SourceEnded);
    }
    info!("stopped; Services go on working, changes do not arrive");
    Ok(())
}

/// Stops once the data path is in step. Receivers are not woken for that.
async fn stop_in_step(state: watch::Receiver<State>, shutdown: CancellationToken) {
    const LOOK: Duration = Duration::from_millis(20);
    while state.borrow().last_synced.is_none() {
        sleep(LOOK).await;
    }
    shutdown.cancel();
}

/// What the control loop is run with.
fn control_settings(settings: &Settings, counts: metrics::Control) -> control::Settings {
    let run_dir = settings.run_dir.path();
    let mut control = control::Settings::new(settings.node_name.as_str(), run_dir, counts);
    control.node_port_addresses = settings.node_port_addresses.clone();
    control.bind_address = settings.bind_address;
    control.serve_external_ips = settings.serve_external_ips;
    control.algorithm = settings.algorithm;
    control.needs_node = matches!(settings.source, Source::ApiServer { .. });
    control
}

/// What is wrong where the node's cgroup v2 tree is wanted and not to be had: Services work without it, as with
/// `--socket-lb none`.
///
/// # Errors
/// The folder that was asked for is none of cgroup v2.
fn without_cgroup(socket_lb: SocketLb, asked: Option<&Path>) -> Result<Option<Problem>, Error> {
    if socket_lb == SocketLb::None {
        return Ok(None);
    }
    match cgroup::root(asked) {
        Ok(_) => Ok(None),
        Err(error) if asked.is_some() => Err(error.into()),
        Err(error) => Ok(Some(error.to_problem())),
    }
}

/// Tells the programs what they are to do, as far as it is known before anything is attached.
fn configure(dataplane: &mut Dataplane, told: &Told, opt_out: &OptOut) {
    dataplane.change_config(|config| told.fill(config));
    if opt_out.is_empty() {
        // What a run with an opt-out has left counts no more, and would be out of date for the next.
        let report = dataplane.set_socket_verdicts(&SocketVerdicts::new());
        for problem in report.problems {
            warn!(%problem, "cannot forget who was opted out");
        }
    }
    if told.answers_pods() {
        dataplane.answer_pods();
    }
}

/// Follows the source. `namespaces`: those whose Pods count.
fn feed(
    source: Source,
    node_name: String,
    namespaces: BTreeSet<String>,
    events: mpsc::Sender<Event>,
    shutdown: CancellationToken,
) -> LocalBoxFuture<'static, Result<(), Error>> {
    match source {
        Source::Manifests(dir) => {
            let settings = source::manifests::Settings { dir, node_name, namespaces };
            source::manifests::run(settings, events, shutdown).err_into().boxed_local()
        }
        Source::ApiServer { kubeconfig, url } => {
            let settings = source::kube::Settings { kubeconfig, url, node_name, namespaces };
            source::kube::run(settings, events, shutdown).err_into().boxed_local()
        }
    }
}

/// The node's addresses on a channel of their own.
fn addresses_of(mut state: watch::Receiver<NodeState>) -> watch::Receiver<BTreeSet<IpAddr>> {
    let (sender, receiver) = watch::channel(state.borrow_and_update().addresses.clone());
    tokio::spawn(async move {
        while state.changed().await.is_ok() {
            let addresses = state.borrow_and_update().addresses.clone();
            sender.send_if_modified(|old| {
                let changed = *old != addresses;
                *old = addresses;
                changed
            });
        }
    });
    receiver
}
