//! The data path's user side: the BPF programs, their maps and their links.
//!
//! ```text
//! plan ─▶ Dataplane ─▶ writer ─▶ kernel maps ─▶ programs
//!             ├─▶ load, attach: programs, pins, links
//!             └─▶ sweep: flows; sockets: connected UDP sockets; fragments: those that came early
//! read: kernel maps ─▶ rows of the debug CLI
//! ```
//!
//! Everything is pinned: stopping the daemon leaves the data path working, and a restart writes
//! only what differs. [`cleanup`] takes it all away.

mod attach;
mod cleanup;
mod codec;
mod error;
mod exact;
mod fragments;
mod load;
mod memory;
mod netns;
pub mod pins;
mod pod_flows;
pub mod read;
mod recount;
mod sockets;
mod sweep;
mod sys;
#[cfg(test)]
mod tests;
mod uplinks;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use aya::{Ebpf, maps::IterableMap as _};
use ipnet::IpNet;
pub use kproxy_common::config::SERVICE_RANGES;
use kproxy_common::{
    abi::{self, program},
    config::{Config, Uplink, config_flags},
};
use nix::{
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
};

use self::{
    attach::{Place, Side, TcMode},
    pins::PinDirs,
    pod_flows::PodFlows,
    recount::Recount,
    writer::{KernelMaps, Writer},
};
pub use self::{
    cleanup::{Cleanup, cleanup},
    error::Error,
    fragments::FragmentHolder,
    sockets::{Closed, SocketCloser, Translated},
    sweep::SweepReport,
    writer::{Fill, Report},
};
use crate::{
    model::Problem,
    node::{self, Device},
    plan::{Change, ServicePortPlan, SocketVerdicts},
};

/// The BPF object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kproxy-ebpf"));

/// What the data path is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Folder of the BPF file system that holds the pins.
    pub bpffs_root: PathBuf,
    /// Folder of the cgroup v2 tree to attach to; `None`: the root is looked for.
    pub cgroup_root: Option<PathBuf>,
    /// Capacity of the SERVICES map in entries (two a service port).
    pub max_services: u32,
    /// Capacity of the SLOTS map.
    pub max_slots: u32,
    /// Capacity of the FRONTENDS map.
    pub max_frontends: u32,
    /// Capacity of the FLOWS map in entries (two a connection).
    pub max_flows: u32,
    /// Capacity of the AFFINITY map in clients.
    pub max_affinity: u32,
    /// Capacity of the RANGES map in ranges.
    pub max_ranges: u32,
}

impl Settings {
    /// The default sizes, and the cgroup root looked for.
    pub fn new(bpffs_root: impl Into<PathBuf>) -> Self {
        Self {
            bpffs_root: bpffs_root.into(),
            cgroup_root: None,
            max_services: abi::DEFAULT_SERVICES,
            max_slots: abi::DEFAULT_SLOTS,
            max_frontends: abi::DEFAULT_FRONTENDS,
            max_flows: abi::DEFAULT_FLOWS,
            max_affinity: abi::DEFAULT_AFFINITY,
            max_ranges: abi::DEFAULT_RANGES,
        }
    }
}

/// How full the maps are that can fill up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Frontends and address entries.
    pub frontends: Fill,
    /// Backend sets, two a service port.
    pub services: Fill,
    /// Backends.
    pub slots: Fill,
    /// Flow entries at the last sweep, two a connection.
    pub flows: Fill,
}

/// The data path of this node.
pub struct Dataplane {
    settings: Settings,
    dirs: PinDirs,
    object: Ebpf,
    writer: Writer<KernelMaps>,
    flows: load::Flows,
    loads: recount::Loads,
    recount: Recount,
    /// Where the socket programs are attached.
    cgroup: Option<PathBuf>,
    /// Whether a program sees sockets close.
    sees_closes: bool,
    uplinks: load::Uplinks,
    netns: netns::Netns,
    pod_flows: PodFlows,
    /// Flow entries at the last sweep.
    flow_entries: usize,
    /// Connections that netfilter masquerades, at the last sweep.
    masqueraded: Option<usize>,
    /// Flow entries of this node's own processes, at the last sweep.
    own: Option<usize>,
    tc: TcMode,
    /// Devices that the programs are attached to; `None`: not attached yet.
    devices: Option<BTreeSet<Place>>,
    notices: Vec<Problem>,
    /// Held as long as this lives: two writers would undo each other's work.
    _lock: Flock<File>,
}

impl Dataplane {
    /// Mounts the BPF file system if needed, reuses or makes the pinned maps, loads the programs,
    /// reads what the maps hold. Attaches nothing and changes no map: a data path that is at work
    /// goes on as it is.
    ///
    /// # Errors
    /// Missing rights, a kernel without what is needed, pins of another layout, another kproxy at
    /// work on the same pins.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        node::bpffs::ensure(&settings.bpffs_root)?;
        let dirs = PinDirs::new(&settings.bpffs_root);
        let lock = lock(&dirs)?;
        let load::Loaded { object, maps, flows, loads, uplinks, netns, filter, notices } =
            load::load(OBJECT, settings, &dirs)?;
        Ok(Self {
            settings: settings.clone(),
            dirs,
            object,
            writer: Writer::open(maps).map_err(Error::Maps)?,
            flows,
            loads,
            recount: Recount::default(),
            cgroup: None,
            sees_closes: false,
            uplinks,
            netns,
            pod_flows: PodFlows::new(filter),
            flow_entries: 0,
            masqueraded: None,
            own: None,
            tc: TcMode::of_kernel(),
            devices: None,
            notices,
            _lock: lock,
        })
    }

    /// Makes the maps hold exactly `desired`: adds, changes, removes, and repairs what a crash has
    /// left. On a node that is as it should be, nothing is written.
    pub fn reconcile(&mut self, desired: impl IntoIterator<Item = ServicePortPlan>) -> Report {
        let mut report = self.writer.reconcile(desired, now());
        self.see_closes(false);
        self.keep_loopback();
        report.problems.extend(self.notices.iter().cloned());
        report
    }

    /// Applies one batch of changes. A frontend may pass from one service port to another within a
    /// batch: it is replaced in one step.
    pub fn apply(&mut self, changes: Vec<Change>) -> Report {
        let mut report = self.writer.apply(changes, now());
        report.problems.extend(self.see_closes(false));
        report.problems.extend(self.keep_loopback());
        report
    }

    /// Tries again what the maps have refused. Does nothing when nothing waits.
    pub fn retry(&mut self) -> Report {
        if self.writer.has_pending() { self.writer.retry(now()) } else { Report::default() }
    }

    /// Sets the addresses of this node, on which NodePorts answer.
    pub fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        self.writer.set_node_addresses(addresses)
    }

    /// Changes what the programs read at run time. Whether it differs from before. The namespace of
    /// the node must be known before [`Self::attach_cgroup`].
    pub fn change_config(&mut self, change: impl FnOnce(&mut Config)) -> bool {
        let mut config = self.writer.config();
        change(&mut config);
        self.writer.set_config(&config)
    }

    /// Whether kproxy's nftables table is needed: the programs mark connections for it, or have
    /// done so and the connections live on. `None` before the first sweep, when that is not known.
    pub fn needs_netfilter(&mut self) -> Option<bool> {
        if self.writer.config().flags & config_flags::NETFILTER != 0 {
            return Some(true);
        }
        self.masqueraded.map(|connections| connections > 0)
    }

    /// Sets the source addresses of connections to backends elsewhere, by device index. Writes
    /// only what differs.
    pub fn set_uplinks(&mut self, wanted: &BTreeMap<u32, Uplink>) -> Report {
        let problems = uplinks::set(&mut self.uplinks, wanted);
        Report { problems, ..Report::default() }
    }

    /// Which network namespaces the socket path serves and which it leaves alone; none where the map
    /// cannot be read.
    pub fn socket_verdicts(&self) -> SocketVerdicts {
        netns::read(&self.netns).unwrap_or_default()
    }

    /// Sets which network namespaces the socket path serves and which it leaves alone. They count
    /// while the configuration says that pods are opted out.
    pub fn set_socket_verdicts(&mut self, wanted: &SocketVerdicts) -> Report {
        let problems = netns::set(&mut self.netns, wanted).into_iter().collect();
        Report { problems, ..Report::default() }
    }

    /// Sets the ranges that ClusterIPs come from, as many of each family as the programs know
    /// ([`SERVICE_RANGES`]). Until the first call those of an earlier run stay.
    pub fn set_service_ranges(&mut self, ranges: &[IpNet]) -> Report {
        let writes = usize::from(self.writer.set_service_ranges(ranges));
        Report { writes, ..Report::default() }
    }

    /// Attaches the socket programs, or gives the links that are there the new programs.
    ///
    /// # Errors
    /// No cgroup v2 tree, or the kernel refused.
    pub fn attach_cgroup(&mut self) -> Result<(), Error> {
        let root = node::cgroup::root(self.settings.cgroup_root.as_deref())?;
        attach::cgroup(&mut self.object, &self.dirs, &root)?;
        self.cgroup = Some(root);
        // A program that an earlier run has attached is replaced like all others.
        let is_attached = self.dirs.cgroup_link(program::RELEASE).exists();
        self.see_closes(is_attached);
        Ok(())
    }

    /// Has a program see sockets close once a service picks by least connections, and not before: it
    /// runs for every socket of the node. Without it no socket is counted. Returns why it is missing,
    /// when that is news.
    fn see_closes(&mut self, anyway: bool) -> Option<Problem> {
        let wanted = (anyway || self.writer.counts_connections()) && !self.sees_closes;
        let root = self.cgroup.as_deref().filter(|_| wanted)?;
        let attached = attach::to_cgroup(&mut self.object, &self.dirs, root, program::RELEASE);
        self.sees_closes = attached.is_ok();
        let flag = if self.sees_closes { config_flags::COUNT_SOCKETS } else { 0 };
        self.change_config(|config| {
            config.flags = config.flags & !config_flags::COUNT_SOCKETS | flag;
        });
        self.note(attached.err()?.to_problem())
    }

    /// Keeps a problem; returns it when it is news.
    fn note(&mut self, problem: Problem) -> Option<Problem> {
        let is_news = !self.notices.contains(&problem);
        is_news.then(|| {
            self.notices.push(problem.clone());
            problem
        })
    }

    /// Takes the socket programs off the cgroup: packets are translated instead
    /// ([`config_flags::NODE_PACKETS`]). Whether there were any.
    ///
    /// # Errors
    /// A link could not be removed.
    pub fn detach_cgroup(&mut self) -> Result<bool, Error> {
        self.change_config(|config| config.flags &= !config_flags::COUNT_SOCKETS);
        let were_there = attach::off_cgroup(&self.dirs)?;
        (self.cgroup, self.sees_closes) = (None, false);
        Recount::forget_sockets(&mut self.loads).map_err(Error::Maps)?;
        Ok(were_there)
    }

    /// Whether the program of the loopback device is wanted: every packet of the node to itself
    /// passes it. With `--socket-lb none`, for SCTP, and as long as connections need it that were
    /// opened then.
    fn wants_loopback(&mut self) -> bool {
        self.writer.config().flags & config_flags::NODE_PACKETS != 0
            || self.writer.serves_sctp()
            || self.own.map_or_else(|| attach::is_on_loopback(&self.dirs), |own| own > 0)
    }

    /// Has the loopback device a program when it is wanted, once the other devices have theirs.
    /// Returns what failed, when that is news.
    fn keep_loopback(&mut self) -> Option<Problem> {
        let devices = self.devices.clone()?;
        if devices.contains(&attach::loopback()) == self.wants_loopback() {
            return None;
        }
        let mut problems = self.attach_to(devices).problems.into_iter();
        self.note(problems.next()?)
    }

    /// Attaches the programs to these uplinks and pod-facing ports and takes them off all other
    /// devices. Every device is tried, whatever fails.
    pub fn sync_devices(&mut self, uplinks: &[Device], pods: &[Device]) -> Report {
        let uplinks = uplinks.iter().map(|device| (device.clone(), Side::Uplink));
        let pods = pods.iter().map(|device| (device.clone(), Side::Pod));
        self.attach_to(uplinks.chain(pods).collect())
    }

    /// Attaches the programs to these devices, and to the loopback device when it is wanted.
    fn attach_to(&mut self, mut wanted: BTreeSet<Place>) -> Report {
        let before = self.devices.take().unwrap_or_default();
        let mut gone: Vec<Place> = before.difference(&wanted).cloned().collect();
        wanted.remove(&attach::loopback());
        if self.wants_loopback() {
            wanted.insert(attach::loopback());
        } else {
            // An earlier run may have attached its filter.
            gone.push(attach::loopback());
        }
        let answered = self.pod_flows.answered();
        let places = attach::Places { wanted: &wanted, answered };
        let mut errors = attach::devices(&mut self.object, &self.dirs, self.tc, places, &gone);
        self.devices = Some(wanted);
        if answered {
            errors.extend(self.pod_flows.open().err());
        }
        let problems = errors.iter().map(Error::to_problem).collect();
        Report { problems, ..Report::default() }
    }

    /// Has the next [`Self::sync_devices`] attach to pod-facing ports what translates answers, which
    /// otherwise waits until [`Self::pod_flows_wait`].
    pub fn answer_pods(&mut self) {
        self.pod_flows.answer();
    }

    /// Whether pod-facing ports get what translates answers.
    pub const fn answers_pods(&self) -> bool {
        self.pod_flows.answered()
    }

    /// Whether a pod-facing port has a flow to open and its answers would not be translated yet.
    pub fn pod_flows_wait(&self) -> bool {
        self.pod_flows.wait()
    }

    /// Attaches what translates answers to the pod-facing ports of the last [`Self::sync_devices`].
    pub fn open_pod_flows(&mut self) -> Report {
        self.answer_pods();
        let devices = self.devices.clone().unwrap_or_default();
        self.attach_to(devices)
    }

    /// Forgets flows that are over and UDP flows of backends that serve no more. To be called every few
    /// seconds, and after a UDP endpoint was removed. Puts the numbers of open connections right.
    ///
    /// # Errors
    /// The flow table could not be read.
    pub fn sweep(&mut self) -> Result<SweepReport, Error> {
        let serves = |index, addr, port| self.writer.serves(index, addr, port);
        let (report, open) = sweep::sweep(&mut self.flows, serves, now()).map_err(Error::Maps)?;
        if self.writer.counts_connections() {
            self.recount.correct(&mut self.loads, &open).map_err(Error::Maps)?;
        }
        self.flow_entries = report.entries - report.removed;
        (self.masqueraded, self.own) = (Some(report.masqueraded), Some(report.own));
        self.keep_loopback();
        Ok(report)
    }

    /// How full the maps are.
    pub fn usage(&self) -> Usage {
        let [frontends, services, slots] = self.writer.fills();
        let capacity = self.flows.map().info().map_or(0, |info| info.max_entries());
        let flows = Fill { used: self.flow_entries as u32, capacity };
        Usage { frontends, services, slots, flows }
    }

    /// Number of service ports in the maps.
    pub fn service_ports(&self) -> usize {
        self.writer.service_ports()
    }

    /// Everything that is not in force now.
    pub fn problems(&self) -> Vec<Problem> {
        self.notices.iter().chain(self.writer.problems()).cloned().collect()
    }

    /// Where the pins are.
    pub const fn dirs(&self) -> &PinDirs {
        &self.dirs
    }
}

/// Locks the folder of the pins; the kernel unlocks it when the process ends, however it ends.
fn lock(dirs: &PinDirs) -> Result<Flock<File>, Error> {
    load::make_dir(&dirs.version)?;
    let path = || dirs.version.clone();
    let folder = File::open(&dirs.version).map_err(|error| Error::Pin {
        what: "open",
        path: path(),
        error,
    })?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => Error::Busy { path: path() },
        errno => Error::Pin { what: "lock", path: path(), error: errno.into() },
    })
}

/// CLOCK_MONOTONIC, the clock of the programs too. It cannot fail on Linux.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
