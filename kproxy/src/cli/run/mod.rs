//! `kproxy run`: the daemon. Puts the pieces together; each of them is elsewhere.

mod fragments;
mod netfilter;
mod opt_out;
mod sink;
mod snat;
mod sockets;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures::FutureExt as _;
use kproxy_common::config::{Range, config_flags};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wildmatch::WildMatch;

use self::netfilter::Table;
use self::sink::KernelSink;
use self::snat::SourceNat;
use super::args::{RunArgs, SocketLb};
use super::values::{ClusterCidrs, DeviceGlob};
use super::{Exit, daemon, opt_out_file};
use crate::control;
use crate::dataplane;
use crate::metrics::Metrics;
use crate::node::{netns, watch as node_watch};
use crate::plan::{Family, NodePortAddresses, OptOut, SocketVerdicts};
use crate::server;
use crate::source;

/// Events on their way from the source: a burst fits, a flood waits.
const EVENTS: usize = 1024;

/// Runs until SIGTERM or SIGINT. The data path is left in place.
///
/// # Errors
/// The daemon cannot start (another one runs, a setting cannot be used, the kernel refuses), or the
/// source of Services has ended.
pub fn run(args: RunArgs) -> Result<Exit> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(args))
}

async fn serve(args: RunArgs) -> Result<Exit> {
    let RunArgs {
        manifests,
        kubeconfig,
        hostname_override,
        cluster_cidr,
        nodeport_addresses,
        bind_address,
        cgroup_root,
        devices,
        pod_devices,
        socket_lb,
        socket_lb_skip_pod_cidrs,
        socket_lb_skip_namespaces,
        snat,
        snat_ports,
        lb_algorithm,
        max_services,
        max_slots,
        max_frontends,
        max_flows,
        max_affinity,
        max_ranges,
        metrics_bind_address,
        pins,
        run_dir,
    } = args;
    let run_dir = run_dir.run_dir;
    let node_name = source::node_name(hostname_override.as_deref())?;
    let _pid_file = PidFile::claim(&run_dir)?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;

    let bpffs_root = pins.bpffs_root;
    let settings = dataplane::Settings {
        bpffs_root: bpffs_root.clone(),
        cgroup_root,
        max_services: max_services.0,
        max_slots: max_slots.0,
        max_frontends: max_frontends.0,
        max_flows: max_flows.0,
        max_affinity: max_affinity.0,
        max_ranges: max_ranges.0,
    };
    let mut dataplane = dataplane::Dataplane::open(&settings)?;
    let (sender, events) = mpsc::channel(EVENTS);
    let opt_out = OptOut {
        ranges: socket_lb_skip_pod_cidrs.into_iter().map(|range| range.0).collect(),
        namespaces: socket_lb_skip_namespaces.into_iter().map(|name| name.0).collect(),
    };
    let opt_out = effective(opt_out, socket_lb);
    opt_out_file::write(&run_dir, &opt_out)?;
    let host_netns = netns::cookie().context("ask for the identity of the network namespace")?;
    dataplane.change_config(|config| {
        config.host_netns = host_netns;
        config.cluster = ranges(&cluster_cidr);
        match socket_lb {
            SocketLb::All => config.flags &= !config_flags::HOST_SOCKETS,
            SocketLb::Host | SocketLb::None => config.flags |= config_flags::HOST_SOCKETS,
        }
        if opt_out.is_empty() {
            config.flags &= !config_flags::OPT_OUT;
        }
    });
    if opt_out.is_empty() {
        // What a run with an opt-out has left counts no more, and would be out of date for the next.
        let report = dataplane.set_socket_verdicts(&SocketVerdicts::new());
        for problem in report.problems {
            warn!(%problem, "cannot forget who was opted out");
        }
    }

    if socket_lb != SocketLb::All || !opt_out.is_empty() {
        dataplane.answer_pods();
    }
    let globs = |given: Vec<DeviceGlob>| given.iter().map(|g| WildMatch::new(g.as_str())).collect();
    let names = node_watch::Names { uplinks: globs(devices), pods: globs(pod_devices) };
    let state = node_watch::follow(names).await?;
    if state.borrow().devices.is_empty() {
        warn!("no device leads out of this node yet; NodePorts answer once there is one");
    }
    let addresses = addresses_of(state.clone());
    let snat = SourceNat::choose(snat, snat_ports)?;
    // Before anything is attached; what this reports is reported again when the devices are.
    let _told_later = snat.apply(&mut dataplane, &state.borrow());
    let (table, table_needed) = watch::channel(dataplane.needs_netfilter());
    tokio::spawn(Table::start(table_needed, &sender).keep(sender.clone()));
    let namespaces = opt_out.namespaces.clone();
    let metrics = Arc::new(Metrics::new().context("make the metrics")?);
    let sweeps = metrics.sweep.clone();
    let sink =
        KernelSink::new(dataplane, state, snat, socket_lb, opt_out, table, sweeps, sender.clone());
    let counts = metrics.control.clone();
    let mut settings = control::Settings::new(node_name.as_str(), &run_dir, counts);
    warn_of_open_family(&nodeport_addresses.0);
    settings.node_port_addresses = nodeport_addresses.0;
    settings.algorithm = lb_algorithm;
    settings.bind_address = Some(bind_address).filter(|ip| !ip.is_unspecified());
    tokio::spawn(server::health_check::serve(settings.state.subscribe(), sender.clone()));
    if let Some(address) = metrics_bind_address.0 {
        tokio::spawn(server::metrics::serve(address, metrics, bpffs_root, sender.clone()));
    }
    let feeding = match manifests {
        Some(dir) => {
            let settings = source::manifests::Settings { dir, node_name, namespaces };
            source::manifests::run(settings, sender, shutdown.clone()).boxed_local()
        }
        None => {
            let settings = source::kube::Settings { kubeconfig, node_name, namespaces };
            source::kube::run(settings, sender, shutdown.clone()).boxed_local()
        }
    };
    let result = tokio::select! {
        result = control::run(settings, events, sink, addresses, shutdown.clone()) => result,
        result = feeding => result,
    };
    let asked = shutdown.is_cancelled();
    shutdown.cancel();
    result?;
    if !asked {
        bail!("the source of Services has ended; restart kproxy");
    }
    info!("stopped; Services go on working, changes do not arrive");
    Ok(Exit::Fine)
}

/// Who is opted out in effect: with `--socket-lb host` every pod is already.
fn effective(opt_out: OptOut, socket_lb: SocketLb) -> OptOut {
    if socket_lb == SocketLb::All || opt_out.is_empty() {
        return opt_out;
    }
    warn!("--socket-lb leaves the sockets of all pods alone: nobody is left to opt out");
    OptOut::default()
}

fn ranges(cidrs: &ClusterCidrs) -> [Range; 2] {
    let v4 = cidrs.v4.map(|net| Range::new(IpAddr::V4(net.network()), net.prefix_len()));
    let v6 = cidrs.v6.map(|net| Range::new(IpAddr::V6(net.network()), net.prefix_len()));
    [v4.unwrap_or_default(), v6.unwrap_or_default()]
}

/// Ranges of one family only are taken for a mistake more often than not (NP-02).
fn warn_of_open_family(addresses: &NodePortAddresses) {
    let NodePortAddresses::Ranges(_) = addresses else { return };
    for family in [Family::V4, Family::V6] {
        if addresses.takes_all(family) {
            warn!(
                "--nodeport-addresses leaves NodePorts open on every IPv{} address",
                family.number()
            );
        }
    }
}

/// The node's addresses on a channel of their own.
fn addresses_of(
    mut state: watch::Receiver<crate::node::NodeState>,
) -> watch::Receiver<BTreeSet<IpAddr>> {
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

/// SIGTERM and SIGINT end the daemon; a second one does so at once.
fn stop_on_signals(shutdown: CancellationToken) -> Result<()> {
    let listen = |kind| signal(kind).context("listen for signals");
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

/// The pid file, removed at the end.
struct PidFile(std::path::PathBuf);

impl PidFile {
    fn claim(run_dir: &Path) -> Result<Self> {
        if let Some(pid) = daemon::running(run_dir)? {
            bail!(
                "kproxy runs already as process {pid} (see {}); stop it first, or give another \
                 --run-dir and --bpffs-root",
                run_dir.display()
            );
        }
        fs::create_dir_all(run_dir)
            .with_context(|| format!("create {}; give another --run-dir", run_dir.display()))?;
        let path = daemon::pid_file(run_dir);
        fs::write(&path, format!("{}\n", std::process::id()))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A pid file that stays is seen to be stale by its process.
        let _stays = fs::remove_file(&self.0);
    }
}
