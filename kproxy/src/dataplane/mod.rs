//! The data path's user side: the BPF programs, their maps and their links.
//!
//! ```text
//! plan ─▶ Dataplane ─┬▶ writer ────▶ the maps of Services
//!                    ├▶ programs     load, attach, pin; cleanup takes it all away
//!                    └▶ upkeep       what must be kept right while traffic goes on
//! the maps ─▶ read ─▶ cli (dump, status), metrics
//!              read ─▶ explain ─▶ cli (explain)   what becomes of a connection, and why
//! the programs ─▶ listen ─▶ cli (trace)          what they decide, as they do
//!              simulate                           the same by the programs, on a made packet
//!              read ─▶ verify ─▶ cli (verify, diff)   what is planned against what is there
//!
//! beneath them   codec             between the plan's words and the layouts of the maps
//!                connections       the two entries of a flow
//!                maps, kernel      the maps as types; bpf(2), shared memory, the clock
//!                settings, report, error
//! ```
//!
//! Everything is pinned: stopping the daemon leaves the data path working, and a restart writes
//! only what differs. [`Dataplane`] is the face of it all: it passes calls on to the rooms, and what
//! one of them finds to be needed of another.

mod codec;
mod connections;
mod drain;
mod error;
pub mod explain;
mod kernel;
pub(crate) mod listen;
mod maps;
mod programs;
pub(crate) mod read;
mod report;
#[cfg(test)]
mod sandbox;
mod settings;
pub(crate) mod simulate;
mod succession;
#[cfg(test)]
mod tests;
mod upkeep;
pub(crate) mod verify;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::mpsc::{self, SyncSender},
};

use ipnet::IpNet;
pub(crate) use kproxy_common::config::SERVICE_RANGES;
use kproxy_common::{
    abi::{map, program},
    config::{Config, Range, Uplink, config_flags},
    flow::{state, unassured},
};
use nix::fcntl::Flock;

#[cfg(test)]
pub(crate) use self::report::Fill;
pub(crate) use self::settings::Sizes;
pub(crate) use self::{
    drain::Drain,
    programs::cleanup::{Cleanup, cleanup},
    report::{PortPool, PortUse, Usage},
    upkeep::{
        fragments::FragmentHolder,
        sockets::{Closed, SocketCloser, Translated},
        sweep::{Given, SweepReport},
        sweeper::FlowSweeper,
    },
};
pub use self::{
    error::{Cause, Error, MapShape, Rejection},
    programs::load::kernel_features,
    report::Report,
    settings::Settings,
};
use self::{
    kernel::{clock, program::SharedProgram},
    maps::{Netns, Uplinks},
    programs::{
        attachments::Attachments,
        load::{self, FlowRoom, Loaded},
        pinning,
        pins::PinDirs,
        place::{Place, Side},
        predecessor::{self, Predecessor},
        takeover::Takeover,
    },
    upkeep::{flow_table::FlowTable, netns, pod_flows::PodFlows, uplinks},
    writer::{KernelMaps, Writer},
};
use crate::{
    errors::with_causes,
    model::Problem,
    node::{self, Device, Served},
    plan::{Change, ServicePortPlan, SocketVerdicts},
};

/// Ranges of ClusterIPs as the programs are told them.
pub(crate) fn service_ranges(ranges: &[IpNet]) -> [[Range; SERVICE_RANGES]; 2] {
    codec::encode_service_ranges(ranges)
}

/// The BPF object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kproxy-ebpf"));

/// The data path of this node.
pub struct Dataplane {
    attachments: Attachments,
    writer: Writer<KernelMaps>,
    /// Capacities that maps grow to at most.
    most: Sizes,
    flow_table: FlowTable,
    /// Runs [`program::SWEEP`].
    sweep: SharedProgram,
    /// [`program::ADOPT`].
    adopt: OwnedFd,
    pod_flows: PodFlows,
    uplinks: Uplinks,
    /// Tells the sweeper that an uplink has lost an address.
    sweeper: Option<SyncSender<()>>,
    netns: Netns,
    /// What is wrong for as long as this lives.
    notices: Vec<Problem>,
    /// Other layout versions whose pins are to be removed once this one is attached.
    predecessors: Vec<Predecessor>,
    /// Going on with the maps of the latest of them, until this version is attached.
    takeover: Option<Takeover>,
    /// Two writers would undo each other's work.
    lock: Flock<File>,
}

/// Has the kernel look at every program, without a trace. How many those are.
///
/// # Errors
/// The first that it refuses.
pub(crate) fn try_programs() -> Result<usize, Error> {
    load::try_all(OBJECT)
}

impl Dataplane {
    /// Mounts the BPF file system if needed, reuses or makes the pinned maps, loads the programs,
    /// reads what the maps hold. Attaches nothing, and changes no map but for the sizes that the
    /// programs are told: a data path that is at work goes on as it is.
    ///
    /// # Errors
    /// Missing rights, a kernel without what is needed, pins of another layout, another kproxy at
    /// work on the same pins.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        node::bpffs::ensure(&settings.bpffs_root)?;
        let dirs = PinDirs::new(&settings.bpffs_root);
        let lock = pinning::lock(&dirs.version)?;
        let predecessors = predecessor::find(&dirs)?;
        let mut takeover = Self::begin_takeover(&predecessors, &dirs)?;
        let Loaded {
            object,
            kept,
            service_maps,
            flow_room,
            sweep,
            adopt,
            loads,
            uplinks,
            netns,
            flow_filter,
            notices,
        } = load::load(OBJECT, settings, &dirs, |name| takeover.as_ref()?.capacity(name))?;
        if let Some(takeover) = &mut takeover {
            takeover.fill()?;
        }
        // Not before: where this version cannot be loaded, the other one's links stay as they are.
        predecessors.iter().try_for_each(|other| other.hand_on_links(&dirs))?;
        let mut writer = Writer::open(KernelMaps::new(service_maps)?)?;
        let most = settings.most();
        writer.grow_to(most);
        set_flow_room(&writer, flow_room);
        if !takeover.as_ref().is_some_and(Takeover::is_apart) {
            // Nobody comes after these, nor before them, whatever was begun.
            let config = writer.config();
            let flags = config.flags & !(config_flags::LEAVING | config_flags::ARRIVING);
            writer.set_config(&Config { flags, ..config });
        }
        Ok(Self {
            attachments: Attachments::new(object, kept, dirs, settings.cgroup_root.clone())?,
            writer,
            most,
            flow_table: FlowTable::new(loads, flow_room.entries),
            sweep: SharedProgram::new(sweep),
            adopt,
            pod_flows: PodFlows::new(flow_filter),
            uplinks,
            sweeper: None,
            netns,
            notices,
            predecessors,
            takeover,
            lock,
        })
    }

    /// Makes the maps hold exactly `desired`: adds, changes, removes, and repairs what a crash has
    /// left. On a node that is as it should be, nothing is written.
    pub fn reconcile(&mut self, desired: impl IntoIterator<Item = ServicePortPlan>) -> Report {
        self.writer.grow_to(self.most);
        let mut report = self.writer.reconcile(desired, clock::now());
        self.grow_for(&mut report);
        // Among the notices, if they fail.
        self.keep_release(false);
        self.keep_loopback();
        report.problems.extend(self.notices.iter().cloned());
        report
    }

    /// Reads the maps again, which somebody else may have changed, for the next [`Self::reconcile`].
    ///
    /// # Errors
    /// A map could not be read; what is known of them stays.
    pub(crate) fn reread(&mut self) -> Result<(), Error> {
        self.writer.reread()
    }

    /// Applies one batch of changes. A frontend may pass from one service port to another within a
    /// batch: it is replaced in one step.
    pub fn apply(&mut self, changes: Vec<Change>) -> Report {
        let mut report = self.writer.apply(changes, clock::now());
        self.grow_for(&mut report);
        report.problems.extend(self.keep_release(false));
        report.problems.extend(self.keep_loopback());
        report
    }

    /// Has larger maps take in what the last pass of the writer has found no room for, as long as they may
    /// grow.
    fn grow_for(&mut self, report: &mut Report) {
        /// In one step all that is missing is asked for; what was refused for that may lack more.
        const STEPS: usize = 4;
        for _ in 0..STEPS {
            let Some(sizes) = self.writer.sizes_wanted() else { return };
            let failed = self.grow(&sizes).err().map(|error| {
                // Until everything is tried again: what fits is served as with maps of the largest size.
                self.writer.keep_size();
                let what = format!("they cannot be made larger: {}", with_causes(&error));
                let remedy = "see that the node has memory to spare; what finds no room waits, and \
                              kproxy tries again";
                Problem::new("the kernel maps", what, remedy)
            });
            let waited = self.writer.take_waiting();
            report.problems.retain(|problem| !waited.contains(problem));
            let Report { writes, words, problems, room_in } =
                self.writer.apply(Vec::new(), clock::now());
            report.writes += writes;
            report.words += words;
            report.room_in = room_in;
            report.problems.extend(problems.into_iter().chain(failed));
        }
    }

    /// Puts larger maps in the place of those that are smaller. Connections, flows, sockets, affinity and
    /// counters stay: those maps are the same, or copied.
    fn grow(&mut self, sizes: &Sizes) -> Result<(), Error> {
        let Sizes { services, slots, frontends } = *sizes;
        let start = clock::now();
        let mut larger = self.attachments.load_larger(OBJECT, sizes)?;
        let Some(Loaded { object, service_maps, sweep, adopt, .. }) = larger.take() else {
            return Ok(());
        };
        let mut maps = KernelMaps::new(service_maps)?;
        maps.copy_from(self.writer.maps())?;
        larger.keep()?;
        self.writer.move_to(maps);
        self.sweep.replace(sweep);
        self.adopt = adopt;
        self.attachments.replace(object)?;
        if let Some(places) = self.attachments.places().cloned() {
            self.sync_places(places).into_iter().next().map_or(Ok(()), Err)?;
        }
        let took = clock::now().saturating_sub(start);
        tracing::info!(services, slots, frontends, ?took, "the maps have grown");
        Ok(())
    }

    /// How full the maps are.
    pub(crate) fn usage(&self) -> Usage {
        let [frontends, services, slots] = self.writer.fills();
        let most = self.writer.most();
        Usage { frontends, services, slots, flows: self.flow_table.fill(), most }
    }

    /// Sets the addresses of this node, on which NodePorts answer.
    pub(crate) fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        let mut report = self.writer.set_node_addresses(addresses);
        self.grow_for(&mut report);
        report.problems.extend(self.keep_loopback());
        report
    }

    /// Sets the ranges that ClusterIPs come from, as many of each family as the programs know
    /// ([`SERVICE_RANGES`]). Until the first call those of an earlier run stay.
    pub(crate) fn set_service_ranges(&mut self, ranges: &[IpNet]) -> Report {
        let writes = usize::from(self.writer.set_service_ranges(ranges));
        Report { writes, ..Report::default() }
    }

    /// Changes what the programs read at run time. Whether it differs from before. The namespace of
    /// the node must be known before [`Self::attach_cgroup`].
    pub(crate) fn change_config(&mut self, change: impl FnOnce(&mut Config)) -> bool {
        let mut config = self.writer.config();
        change(&mut config);
        self.writer.set_config(&config)
    }

    /// Sets the source addresses of connections to backends elsewhere, by device index. Writes
    /// only what differs.
    pub(crate) fn set_uplinks(&mut self, wanted: &BTreeMap<u32, Uplink>) -> Report {
        let loses = uplinks::loses(&self.uplinks, wanted);
        let report = uplinks::set(&mut self.uplinks, wanted).into();
        if loses && let Some(sweeper) = &self.sweeper {
            // Full: it knows already.
            sweeper.try_send(()).ok();
        }
        report
    }

    /// Which network namespaces the socket path serves and which it leaves alone; none where the map
    /// cannot be read.
    pub(crate) fn socket_verdicts(&self) -> SocketVerdicts {
        netns::read(&self.netns)
    }

    /// Sets which network namespaces the socket path serves and which it leaves alone. They count
    /// while the configuration says that pods are opted out.
    pub(crate) fn set_socket_verdicts(&mut self, wanted: &SocketVerdicts) -> Report {
        netns::set(&mut self.netns, wanted).into_iter().collect::<Vec<_>>().into()
    }

    /// Attaches the socket programs, or gives the links that are there the new programs.
    ///
    /// # Errors
    /// No cgroup v2 tree, or the kernel refused.
    pub(crate) fn attach_cgroup(&mut self) -> Result<(), Error> {
        self.attachments.attach_cgroup()?;
        // A program that an earlier run has attached is replaced like all others.
        self.keep_release(self.attachments.has_release());
        Ok(())
    }

    /// Takes the socket programs off the cgroup: packets are translated instead
    /// ([`config_flags::NODE_PACKETS`]). Whether there were any.
    ///
    /// # Errors
    /// A link could not be removed.
    pub(crate) fn detach_cgroup(&mut self) -> Result<bool, Error> {
        self.change_config(|config| config.flags &= !config_flags::COUNT_SOCKETS);
        let were_there = self.attachments.detach_cgroup()?;
        self.flow_table.forget_sockets()?;
        Ok(were_there)
    }

    /// Has a program see sockets close once a service picks by least connections, and not before: it
    /// runs for every socket of the node. Without it no socket is counted. Returns why it is missing,
    /// when that is news.
    fn keep_release(&mut self, anyway: bool) -> Option<Problem> {
        if !anyway && !self.writer.counts_connections() {
            return None;
        }
        let attached = self.attachments.attach_release()?;
        let flag = if attached.is_ok() { config_flags::COUNT_SOCKETS } else { 0 };
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

    /// Devices that have programs, of this run or an earlier one, as far as pins tell.
    pub(crate) fn served(&self) -> Served {
        self.attachments.served()
    }

    /// Makes pins again that somebody has taken away.
    pub(crate) fn repair_pins(&mut self) -> Report {
        let repaired = self.attachments.repair_pins().and_then(|any| {
            let folder = self.attachments.version_folder();
            if any && !pinning::is_on(&self.lock, folder) {
                // What was unmounted is there as long as its folder is open, with the links in it.
                self.attachments.carry_over(&self.lock)?;
                self.lock = pinning::lock(self.attachments.version_folder())?;
            }
            Ok(())
        });
        repaired.err().into_iter().collect::<Vec<_>>().into()
    }

    /// The folders of pins.
    pub(crate) fn pin_folders(&self) -> [PathBuf; 3] {
        self.attachments.pin_folders()
    }

    /// Attaches socket programs again that somebody has taken off.
    pub(crate) fn repair_cgroup(&mut self) -> Report {
        self.attachments.repair_cgroup().err().into_iter().collect::<Vec<_>>().into()
    }

    /// Attaches the programs to these uplinks and pod-facing ports and takes them off all other
    /// devices; attaches again what somebody has taken off. Every device is tried, whatever fails.
    pub(crate) fn sync_devices(&mut self, uplinks: &[Device], pods: &[Device]) -> Report {
        let place = |side| move |device: &Device| Place { device: device.clone(), side };
        let uplinks = uplinks.iter().map(place(Side::Uplink));
        let pods = pods.iter().map(place(Side::Pod));
        let places = uplinks.chain(pods).collect();
        let mut errors = match self.takeover.take() {
            Some(takeover) if takeover.is_apart() => self.take_over(takeover, places),
            _ => self.sync_places(places),
        };
        if errors.is_empty() {
            errors = self.remove_predecessors();
        }
        errors.into()
    }

    /// Attaches the programs to these places, and to the loopback device when it is wanted.
    fn sync_places(&mut self, wanted: BTreeSet<Place>) -> Vec<Error> {
        let answers_pods = self.pod_flows.answers_pods();
        let loopback = self.wants_loopback();
        let mut errors = self.attachments.sync_places(wanted, loopback, answers_pods);
        if answers_pods {
            errors.extend(self.pod_flows.open().err());
        }
        errors
    }

    /// Whether the program of the loopback device is wanted: every packet of the node to itself
    /// passes it. With `--socket-lb none`, for SCTP, for sockets that are bound to a loopback address and
    /// dial a NodePort there, and as long as connections need it that were opened then.
    fn wants_loopback(&self) -> bool {
        self.writer.config().flags & config_flags::NODE_PACKETS != 0
            || self.writer.serves_sctp()
            || self.writer.serves_loopback()
            || match self.flow_table.of_node() {
                Some(flows) => flows > 0,
                None => self.attachments.is_on_loopback(),
            }
    }

    /// Has the loopback device a program when it is wanted, once the other devices have theirs.
    /// Returns what failed, when that is news.
    fn keep_loopback(&mut self) -> Option<Problem> {
        let places = self.attachments.places()?;
        if places.contains(&Place::loopback()) == self.wants_loopback() {
            return None;
        }
        let errors = self.sync_places(places.clone());
        self.note(errors.first()?.to_problem())
    }

    /// Has the next [`Self::sync_devices`] attach to pod-facing ports what translates answers, which
    /// otherwise waits until [`Self::has_pending_pod_flows`].
    pub(crate) const fn answer_pods(&mut self) {
        self.pod_flows.answer_pods();
    }

    /// Whether pod-facing ports get what translates answers.
    pub(crate) const fn answers_pods(&self) -> bool {
        self.pod_flows.answers_pods()
    }

    /// Whether a pod-facing port has a flow to open and its answers would not be translated yet.
    pub(crate) fn has_pending_pod_flows(&self) -> bool {
        self.pod_flows.are_pending()
    }

    /// Attaches what translates answers to the pod-facing ports of the last [`Self::sync_devices`].
    pub(crate) fn open_pod_flows(&mut self) -> Report {
        self.answer_pods();
        let places = self.attachments.places().cloned().unwrap_or_default();
        self.sync_places(places).into()
    }

    /// What sweeps the flows of this data path; there is one. To be run every few seconds.
    ///
    /// # Errors
    /// A map cannot be opened once more.
    pub(crate) fn flow_sweeper(&mut self) -> Result<FlowSweeper, Error> {
        let maps = self.attachments.swept_maps()?;
        let (sender, lost) = mpsc::sync_channel(1);
        self.sweeper = Some(sender);
        Ok(FlowSweeper::new(self.sweep.clone(), maps, lost))
    }

    /// Takes in what a sweep has found.
    pub(crate) fn swept(&mut self, report: SweepReport) {
        self.flow_table.swept(report);
        self.keep_loopback();
    }

    /// What the programs read at run time.
    pub(crate) fn config(&self) -> Config {
        self.writer.config()
    }

    /// Whether open connections are counted by backend.
    pub(crate) const fn counts_connections(&self) -> bool {
        self.writer.counts_connections()
    }

    /// Whether the backend of a UDP flow serves no more, so that its next datagram goes to another one.
    pub(crate) fn has_left(&self, given: Given) -> bool {
        let Given { service, generation, addr, port } = given;
        self.writer.generation(service) != Some(generation)
            && !self.writer.serves(service, addr, port)
    }

    /// Whether kproxy's nftables table is needed: the programs mark connections for it, or have
    /// done so and the connections live on. `None` before the first sweep, when that is not known.
    pub(crate) fn needs_netfilter(&self) -> Option<bool> {
        if self.writer.config().flags & config_flags::NETFILTER != 0 {
            return Some(true);
        }
        self.flow_table.masqueraded().map(|connections| connections > 0)
    }

    /// What closes sockets of this data path.
    ///
    /// # Errors
    /// The kernel refuses the program that looks into sockets.
    pub(crate) fn socket_closer(&mut self) -> Result<SocketCloser, Error> {
        self.attachments.load_to_run(program::UDP_SOCKET).map(SocketCloser::new)
    }

    /// Whether the backend of a socket may go on: it still serves what the socket dialled. A
    /// frontend that is gone altogether takes no backend with it.
    pub(crate) fn may_go_on(&self, socket: &Translated) -> bool {
        let ((addr, port), backend) = (socket.frontend(), socket.backend());
        self.writer
            .udp_service(addr, port)
            .is_none_or(|index| self.writer.serves(index, backend.0, backend.1))
    }

    /// What holds fragments back for this data path; there is one.
    ///
    /// # Errors
    /// The kernel refuses the program that injects, or the ring buffer cannot be read.
    pub(crate) fn fragment_holder(&mut self) -> Result<FragmentHolder, Error> {
        Ok(FragmentHolder::new(
            self.attachments.load_to_run(program::INJECT)?,
            self.attachments.take_map(map::EARLY)?,
            self.attachments.take_map(map::INJECTED)?,
        ))
    }
}

/// Tells the programs how many flows there may be, and gives new maps the default times.
fn set_flow_room(writer: &Writer<KernelMaps>, room: FlowRoom) {
    let mut config = writer.config();
    if config.timeouts.iter().all(|seconds| *seconds == 0) {
        config.timeouts = state::TIMEOUTS;
    }
    config.unassured = room.unassured.checked_ilog2().map_or(0, |log| 1 << log);
    config.max_assured = unassured::most_assured(room.entries);
    writer.set_config(&config);
}
