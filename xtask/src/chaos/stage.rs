//! The lab of one attack: two nodes with kproxy, Services with backends on the dialled node and
//! elsewhere, a client outside.

use std::{
    cell::Cell,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    thread::{self, available_parallelism, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use kproxy_lab::{
    Family, Flood, FloodReport, Held, Hold, Lab, Mode, Outcome, POD_PORT, Packets, Place, Probe,
    Proxy, ProxySpec, Relay, SPOOFED, Source,
    manifest::{Service, Slice, slices, yaml},
    poll_until,
};
use serde_json::{Value, json};

/// Whether the daemon lives through an attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Daemon {
    /// It does.
    Alive,
    /// It is killed when the attack begins.
    Killed,
}

impl Daemon {
    /// Alive first.
    pub(super) const BOTH: [Self; 2] = [Self::Alive, Self::Killed];
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Killed => "killed",
        })
    }
}

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Time of one attack.
    pub(super) time: Duration,
    /// Packets a second.
    pub(super) rate: u64,
}

impl Effort {
    /// For quiet times, and for attacks on a backend itself. Long enough for a UDP dialogue to become
    /// a stream.
    pub(super) fn shorter(self) -> Self {
        Self { time: (self.time / 5).max(Duration::from_secs(3)), ..self }
    }
}

/// A Service whose NodePort is attacked.
pub(super) struct Target {
    name: &'static str,
    protocol: &'static str,
    /// Last part of its ClusterIPs.
    host: u8,
    node_port: u16,
    backends: &'static [&'static str],
}

/// TCP, the backend on the dialled node.
pub(super) const NEAR: Target =
    Target { name: "near", protocol: "TCP", host: 10, node_port: 30090, backends: &["n1/a"] };
/// TCP, the backend on the other node.
pub(super) const FAR: Target =
    Target { name: "far", protocol: "TCP", host: 11, node_port: 30091, backends: &["n2/a"] };
/// UDP, backends on both nodes.
pub(super) const UDP: Target = Target {
    name: "udp",
    protocol: "UDP",
    host: 12,
    node_port: 30092,
    backends: &["n1/b", "n2/b"],
};
const TARGETS: [&Target; 3] = [&NEAR, &FAR, &UDP];
/// A Service that nobody dials.
const EXTRA: Target =
    Target { name: "extra", protocol: "TCP", host: 13, node_port: 30093, backends: &["n2/a"] };
/// File of its manifests.
const EXTRA_FILE: &str = "extra.yaml";

/// The node that is dialled.
const NODE: &str = "n1";
/// A pod of it that dials ClusterIPs.
const POD: &str = "n1/c";
/// File of the manifests.
const FILE: &str = "chaos.yaml";
/// With SYN cookies a backend answers every SYN, however many are half-open.
const HOLDS: &str = "echo 1 > /proc/sys/net/ipv4/tcp_syncookies; \
                     echo 65535 > /proc/sys/net/ipv4/tcp_max_syn_backlog; \
                     echo 65535 > /proc/sys/net/core/somaxconn";
/// Connections that stand through an attack: from outside, and from a pod.
const STANDING: [usize; 2] = [20, 4];

/// A lab with kproxy running.
pub(super) struct Stage {
    lab: Lab,
    proxies: Vec<Arc<Proxy>>,
    /// Whether there is a Service that nobody dials, beside the targets.
    has_extra: Cell<bool>,
}

impl Stage {
    /// Makes it; `arguments` are those of kproxy besides the usual ones.
    pub(super) fn new(arguments: &[&str]) -> Result<Self> {
        let (lab, objects) = Self::without_proxies()?;
        lab.write_manifest(FILE, &yaml(objects)?)?;
        Self::start(lab, ProxySpec::kproxy(Source::Manifests).args(arguments))
    }

    /// Makes it with another build of kproxy.
    pub(super) fn with_build(program: &Path) -> Result<Self> {
        let (lab, objects) = Self::without_proxies()?;
        lab.write_manifest(FILE, &yaml(objects)?)?;
        Self::start(lab, ProxySpec::kproxy(Source::Manifests).binary(program))
    }

    /// Makes it with the real API server and kube-proxy; `program`: another release of that than the lab's.
    pub(super) fn with_kube_proxy(mode: Mode, program: Option<&Path>) -> Result<Self> {
        let (lab, objects) = Self::without_proxies()?;
        let api = lab.start_control_plane()?.api();
        for object in objects {
            api.apply_object(object)?;
        }
        let mut spec = ProxySpec::kube_proxy(mode);
        if let Some(program) = program {
            spec = spec.binary(program);
        }
        Self::start(lab, spec)
    }

    /// Makes it with the real API server behind a relay that can break what passes, and `fillers` Services that
    /// nobody dials.
    pub(super) fn behind_relay(fillers: u16) -> Result<(Self, Relay)> {
        let (lab, objects) = Self::without_proxies()?;
        let control = lab.start_control_plane()?;
        for object in objects.into_iter().chain(EXTRA.objects(&lab)?) {
            control.api().apply_object(object)?;
        }
        for number in 0..fillers {
            for object in filler(&lab, number, 1)? {
                control.api().apply_object(object)?;
            }
        }
        let relay = control.start_relay()?;
        let spec = ProxySpec::kproxy(Source::Api).kubeconfig(relay.kubeconfig());
        Ok((Self::start(lab, spec)?, relay))
    }

    /// The lab.
    pub(super) const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Gives the Service that nobody dials this backend and no other.
    pub(super) fn move_extra(&self, backend: &str) -> Result<()> {
        let place = self.lab.place(backend)?;
        for slice in slices(EXTRA.name, "main", EXTRA.protocol, POD_PORT, &[&place]) {
            self.lab.control()?.api().apply_object(slice)?;
        }
        Ok(())
    }

    /// Waits until clients outside, by either node, and a pod reach this backend by it and no other; how long that
    /// took.
    pub(super) fn extra_is_at(&self, backend: &str, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        for (node, family) in self.lab.nodes().iter().flat_map(|n| Family::ALL.map(|f| (n, f))) {
            let to = self.lab.node(node).at(family, EXTRA.node_port);
            leads_to(&self.client(), to, backend, patience)?;
        }
        self.extra_v4_is_at(backend, patience)?;
        Ok(started.elapsed())
    }

    /// As [`Self::extra_is_at`], for pods and IPv4.
    pub(super) fn extra_v4_is_at(&self, backend: &str, patience: Duration) -> Result<()> {
        leads_to(&*self.pod()?, self.inside(&EXTRA, Family::V4)?, backend, patience)
    }

    /// The lab, and the targets' objects.
    fn without_proxies() -> Result<(Lab, Vec<Value>)> {
        let lab = Lab::builder().nodes(2).pods(&["a", "b", "c"]).build()?;
        for (range, family) in SPOOFED.iter().zip(["-4", "-6"]) {
            lab.router().run("ip", &[family, "route", "add", "blackhole", range])?;
        }
        let mut objects = Vec::<Value>::new();
        for target in TARGETS {
            objects.extend(target.objects(&lab)?);
            for backend in target.backends {
                let backend = lab.place(backend)?;
                // A socket takes its backlog when it begins to listen.
                backend.stop_serving(POD_PORT)?;
                backend.run("sh", &["-c", HOLDS])?;
                backend.serve(POD_PORT)?;
            }
        }
        Ok((lab, objects))
    }

    fn start(lab: Lab, spec: ProxySpec) -> Result<Self> {
        let proxies = lab.start_proxies(spec)?;
        let stage = Self { lab, proxies, has_extra: Cell::new(false) };
        stage.wait_served()?;
        Ok(stage)
    }

    /// The client outside.
    pub(super) fn client(&self) -> Arc<Place> {
        self.lab.client()
    }

    /// What clients outside dial.
    pub(super) fn frontend(&self, target: &Target, family: Family) -> SocketAddr {
        self.lab.node(NODE).at(family, target.node_port)
    }

    /// The first backend itself.
    pub(super) fn backend(&self, target: &Target, family: Family) -> Result<SocketAddr> {
        Ok(self.lab.place(target.backends[0])?.at(family, POD_PORT))
    }

    /// A pod of the dialled node.
    pub(super) fn pod(&self) -> Result<Arc<Place>> {
        self.lab.place(POD)
    }

    /// What pods dial.
    pub(super) fn inside(&self, target: &Target, family: Family) -> Result<SocketAddr> {
        Ok(SocketAddr::new(target.cluster_ip(family).parse()?, 80))
    }

    /// kproxy on both nodes, beside the proxies that run.
    pub(super) fn start_kproxy_beside(&self) -> Result<Vec<Arc<Proxy>>> {
        let spec = ProxySpec::kproxy(Source::Api).beside();
        // kube-proxy has the usual address.
        self.lab.start_proxies(spec.args(["--metrics-bind-address", ""]))
    }

    /// A place of the lab.
    pub(super) fn place(&self, name: &str) -> Result<Arc<Place>> {
        self.lab.place(name)
    }

    /// A NodePort, as clients outside dial it.
    pub(super) fn node_port(&self, family: Family, port: u16) -> SocketAddr {
        self.lab.node(NODE).at(family, port)
    }

    /// Writes a file of manifests, in the place of one of this name.
    pub(super) fn write(&self, file: &str, objects: Vec<Value>) -> Result<()> {
        self.lab.write_manifest(file, &yaml(objects)?)
    }

    /// Removes it.
    pub(super) fn remove(&self, file: &str) -> Result<()> {
        self.lab.remove_manifest(file)
    }

    /// Runs a script on the dialled node; `$BPFFS` is where the pins are, `$KEPT` where files may be kept.
    pub(super) fn shell(&self, script: &str) -> Result<()> {
        let bpffs = self.lab.bpffs(NODE);
        let kept = self.lab.dir().join("kept");
        let script = format!("BPFFS='{}'; KEPT='{}'; {script}", bpffs.display(), kept.display());
        self.lab.node(NODE).run("sh", &["-c", &script]).map(drop)
    }

    /// What `kproxy status` says on the dialled node.
    pub(super) fn status(&self) -> Result<Value> {
        let output = self.kproxy(NODE, "status")?.args(["-o", "json"]).output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The daemon of the dialled node.
    pub(super) fn proxy(&self) -> &Proxy {
        &self.proxies[0]
    }

    /// Waits until clients outside are answered by every target.
    pub(super) fn wait_served(&self) -> Result<()> {
        for (target, family) in TARGETS.iter().flat_map(|t| Family::ALL.map(|f| (t, f))) {
            let probe = target.probe(self.frontend(target, family));
            self.client().probe_until(&probe, Outcome::all_answered)?;
        }
        Ok(())
    }

    /// The daemons.
    pub(super) fn proxies(&self) -> &[Arc<Proxy>] {
        &self.proxies
    }

    /// A `kproxy` command on a node.
    pub(super) fn kproxy(&self, node: &str, subcommand: &str) -> Result<Command> {
        self.lab.kproxy_command(node, subcommand)
    }

    /// The same of another build.
    pub(super) fn kproxy_of(
        &self,
        program: &Path,
        node: &str,
        subcommand: &str,
    ) -> Result<Command> {
        self.lab.kproxy_command_of(program, node, subcommand)
    }

    /// Adds a Service that nobody dials, or takes it away.
    pub(super) fn toggle_extra(&self) -> Result<()> {
        if self.has_extra.replace(!self.has_extra.get()) {
            return self.lab.remove_manifest(EXTRA_FILE);
        }
        self.lab.write_manifest(EXTRA_FILE, &yaml(EXTRA.objects(&self.lab)?)?)
    }

    /// Whether that is there.
    pub(super) fn has_extra(&self) -> bool {
        self.has_extra.get()
    }

    /// Dialogues over UDP through a target, by its NodePort and by its ClusterIP.
    pub(super) fn converse(&self, target: &Target, family: Family) -> Result<Standing> {
        let dialled = [
            (self.client(), self.frontend(target, family)),
            (self.pod()?, self.inside(target, family)?),
        ];
        let mut held = Vec::new();
        for ((from, to), count) in dialled.iter().zip([4, 4]) {
            for _dialogue in 0..count {
                held.push(from.hold(Hold::udp(*to).pause(Duration::from_millis(100)))?);
            }
        }
        Ok(Standing(held))
    }

    /// Kills the daemons of both nodes if that is what happens to them.
    pub(super) fn begin(&self, daemon: Daemon) -> Result<()> {
        match daemon {
            Daemon::Alive => Ok(()),
            Daemon::Killed => self.proxies.iter().try_for_each(|proxy| proxy.kill()),
        }
    }

    /// Sends a flood, as the client's namespace can.
    pub(super) fn flood(&self, flood: Flood) -> Result<FloodReport> {
        // The last CPU is the flood's; where there are others, clients and servers have them.
        let cpu = available_parallelism().map_or(0, |cpus| cpus.get() - 1);
        self.client().flood(flood.cpu(cpu))
    }

    /// TCP connections through a target, by its NodePort and by its ClusterIP, asked once a second.
    pub(super) fn stand(&self, target: &Target, family: Family) -> Result<Standing> {
        self.stand_for(target, family, PATIENCE)
    }

    /// The same; each waits for so long for an answer.
    pub(super) fn stand_for(
        &self,
        target: &Target,
        family: Family,
        patience: Duration,
    ) -> Result<Standing> {
        let dialled = [
            (self.client(), self.frontend(target, family)),
            (self.pod()?, self.inside(target, family)?),
        ];
        let mut held = Vec::new();
        for ((from, to), count) in dialled.iter().zip(STANDING) {
            for _connection in 0..count {
                let hold = Hold::tcp(*to).pause(Duration::from_secs(1)).timeout(patience);
                held.push(from.hold(hold)?);
            }
        }
        Ok(Standing(held))
    }
}

/// How long a client waits for a connection, and for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that stand.
pub(super) struct Standing(Vec<Held>);

impl Standing {
    /// Ends them; how many there were, and how many have lost anything or are not answered any more.
    pub(super) fn end(self) -> Result<(usize, usize)> {
        self.end_telling().map(|(count, lost)| (count, lost.len()))
    }

    /// As [`Self::end`], with what those have seen that have lost something.
    pub(super) fn end_telling(self) -> Result<(usize, Vec<String>)> {
        let before: Vec<u64> =
            self.0.iter().map(|held| Ok(held.report()?.answered)).collect::<Result<_>>()?;
        // Time for one more request of each.
        sleep(Duration::from_secs(2));
        let count = before.len();
        let mut lost = Vec::new();
        // Each ends after its pause.
        let reports = thread::scope(|scope| {
            let ending: Vec<_> =
                self.0.into_iter().map(|held| scope.spawn(move || held.stop())).collect();
            ending
                .into_iter()
                .map(|thread| thread.join().map_err(|_panic| anyhow!("a thread panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        for (report, before) in reports.into_iter().zip(before) {
            if !report.is_flawless() || report.answered == before {
                lost.push(format!("{before} answers so far, {report:?}"));
            }
        }
        Ok((count, lost))
    }
}

/// Waits until an address leads to this backend and no other.
fn leads_to(from: &Place, to: SocketAddr, backend: &str, patience: Duration) -> Result<()> {
    let is_there = |outcome: &Outcome| {
        outcome.all_answered() && outcome.server_set().into_iter().eq([backend])
    };
    let probe = Probe::tcp(to).count(3).timeout(Duration::from_secs(1));
    let ask = || from.probe(probe.clone());
    let outcome = poll_until(patience, Duration::from_millis(50), ask, is_there)?;
    let name = from.name();
    ensure!(is_there(&outcome), "{to} leads {name} not to {backend} in {patience:?}: {outcome}");
    Ok(())
}

/// A Service that nobody dials, with so many endpoints that are nobody's.
pub(super) fn filler(lab: &Lab, number: u16, endpoints: u8) -> Result<Vec<Value>> {
    let name = format!("filler-{number}");
    let [high, low] = number.to_be_bytes();
    let service = Service::new(&name)
        .cluster_ips(
            &format!("10.96.{}.{low}", 128 + high),
            &format!("fd00:10:96::{:x}", 0x8000 + number),
        )
        .port("main", "TCP", 80, POD_PORT);
    let node = lab.node(NODE);
    let mut objects = vec![Value::from(service)];
    for family in Family::ALL {
        let mut slice = Slice::of(&name, family).port("main", "TCP", POD_PORT);
        for endpoint in 1..=endpoints {
            let ip: IpAddr = match family {
                Family::V4 => Ipv4Addr::new(192, 0, 2, endpoint).into(),
                Family::V6 => format!("2001:db8::{endpoint:x}").parse()?,
            };
            slice = slice.endpoint(ip, node.name(), json!({"ready": true}));
        }
        objects.push(slice.into());
    }
    Ok(objects)
}

impl Target {
    /// The packets that flood it.
    pub(super) fn flood(&self, to: SocketAddr, effort: Effort) -> Flood {
        let packets = if self.protocol == "TCP" { Packets::Syn } else { Packets::Datagram };
        Flood::new(packets, to, effort.rate).duration(effort.time)
    }

    /// Its NodePort.
    pub(super) const fn node_port(&self) -> u16 {
        self.node_port
    }

    /// One honest request.
    pub(super) fn probe(&self, to: SocketAddr) -> Probe {
        let probe = if self.protocol == "TCP" { Probe::tcp(to) } else { Probe::udp(to) };
        probe.timeout(PATIENCE)
    }

    fn cluster_ip(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("10.96.0.{}", self.host),
            Family::V6 => format!("fd00:10:96::{}", self.host),
        }
    }

    fn objects(&self, lab: &Lab) -> Result<Vec<Value>> {
        let [v4, v6] = Family::ALL.map(|family| self.cluster_ip(family));
        let service = Service::new(self.name)
            .cluster_ips(&v4, &v6)
            .of_type("NodePort")
            .port("main", self.protocol, 80, POD_PORT)
            .node_port(self.node_port);
        let places: Vec<_> =
            self.backends.iter().map(|name| lab.place(name)).collect::<Result<_>>()?;
        let places: Vec<&Place> = places.iter().map(AsRef::as_ref).collect();
        let slices = slices(self.name, "main", self.protocol, POD_PORT, &places);
        Ok([service.into()].into_iter().chain(slices.map(Value::from)).collect())
    }
}
