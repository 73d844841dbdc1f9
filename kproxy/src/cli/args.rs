//! What can be typed: clap types and nothing else.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use kproxy_common::abi;
use kproxy_common::drop_reason::DropReason;

use crate::plan::Algorithm;

use super::kube_proxy_flags::KubeProxyFlags;
use super::values::{
    AddressFilter, BPFFS_ROOT, DeviceGlob, Endpoint, MapSize, NamespaceName, PodRange, PortFilter,
    PortRange, ServiceFilter, StateTimeout, Target, Timeout, Who, services,
};

/// An eBPF data path for Kubernetes Services that replaces kube-proxy beside any CNI.
#[derive(Parser, Debug)]
#[command(name = "kproxy", version, propagate_version = true, after_help = EXIT_CODES)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as
    /// `info,kproxy::dataplane=debug`
    #[arg(long, global = true, env = "KPROXY_LOG", value_name = "LEVEL", hide_env_values = true)]
    pub log_level: Option<String>,
}

/// Shown at the end of the help.
const EXIT_CODES: &str = "\
Exit codes: 0 fine, 1 the answer is no (status: not in order), 2 wrong usage or environment.
Colour only on a terminal; NO_COLOR=1 turns it off.";

/// The verbs.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Run the daemon: follow Services and endpoints and keep the kernel maps in step
    Run(Box<RunArgs>),
    /// Print what the daemon would run with, and where each value comes from; takes the options of `run`
    Config(Box<ConfigArgs>),
    /// Say whether kproxy can run on this node, and what is in its way; takes the options of `run`, changes nothing
    Check(Box<CheckArgs>),
    /// Show what the kernel maps hold, by name; works with the daemon dead or alive
    Dump(DumpArgs),
    /// Explain what becomes of a connection, and why; works with the daemon dead or alive
    Explain(ExplainArgs),
    /// Show which process in which pod holds which backend under which frontend
    Sockets(SocketsArgs),
    /// Say whether kproxy is in order on this node, and if not, why
    Status(StatusArgs),
    /// Compare what is planned with what the kernel holds, maps and programs; takes the options of `run`
    Verify(Box<VerifyArgs>),
    /// Say what manifests would change of what the kernel maps hold; takes the options of `run`
    Diff(Box<DiffArgs>),
    /// Write one archive with all that helps to find out what is wrong on this node, and no secret
    Bugreport(BugreportArgs),
    /// Show Services and their backends by new connections, open flows, drops and failures, again and again
    Top(TopArgs),
    /// Show what is decided of connections as it is: backends given, refusals, drops; works with the daemon dead or alive
    Trace(TraceArgs),
    /// Take every trace of kproxy off this node: programs, maps, nftables table, run folder; or kube-proxy's rules
    Cleanup(CleanupArgs),
    /// Print the version of kproxy and of its map layouts
    Version(VersionArgs),
    /// Print a shell completion script
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man(ManArgs),
}

/// `kube-proxy`: `kproxy run` under the name of what it replaces.
#[derive(Parser, Debug)]
#[command(name = "kube-proxy", disable_version_flag = true, after_help = EXIT_CODES)]
pub(super) struct KubeProxyCli {
    /// What it is run with.
    #[command(flatten)]
    pub run: RunArgs,

    /// Print the version, and end
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    pub version: Option<String>,

    /// What to log on stderr: error, warn, info, debug, trace, or a filter
    #[arg(long, env = "KPROXY_LOG", value_name = "LEVEL", hide_env_values = true)]
    pub log_level: Option<String>,
}

/// `kproxy config`
#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    /// What `kproxy run` is given.
    #[command(flatten)]
    pub run: RunArgs,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `kproxy check`
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// What `kproxy run` is to be given.
    #[command(flatten)]
    pub run: RunArgs,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `kproxy diff`
#[derive(Args, Debug)]
#[command(after_help = DIFF_EXIT_CODES)]
pub(super) struct DiffArgs {
    /// File with Services and EndpointSlices, as YAML or JSON, or a folder of such files; `-`: standard input.
    /// May be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Where the objects come from that are in none of the files [default: as of the daemon's last start].
    #[command(flatten)]
    pub run: RunArgs,
}

/// Shown at the end of the help of `kproxy diff`.
const DIFF_EXIT_CODES: &str = "Exit codes: 0 nothing would change, 1 something would, 2 an object or the maps cannot be read.";

/// `kproxy verify`
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// Mend what differs: a running daemon is asked to look at the kernel anew; where none runs, this does
    /// what its start does, and ends
    #[arg(long, conflicts_with = "maps_only")]
    pub repair: bool,

    /// Read no source: only say whether the maps agree with themselves, and whether programs are missing
    #[arg(long)]
    pub maps_only: bool,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// What the plan is made with [default: what the daemon was last started with].
    #[command(flatten)]
    pub run: RunArgs,
}

/// `kproxy run`
#[derive(Args, Debug, Clone)]
pub(super) struct RunArgs {
    /// Folder of YAML manifests (Services, EndpointSlices, Node) to follow instead of an API
    /// server
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,

    /// Address of the API server, in place of the one of the kubeconfig
    #[arg(long, value_name = "URL", conflicts_with = "manifests")]
    pub master: Option<String>,

    /// File with a `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`, as YAML or JSON; what is
    /// typed comes before it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Write what is in force to this file, as a `KubeProxyConfiguration`, and end
    #[arg(long, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,

    /// kube-proxy's flags.
    #[command(flatten)]
    pub kube_proxy: KubeProxyFlags,

    /// Whether externalIPs of Services are served; where not, nothing is said of those that ask for it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true",
          action = ArgAction::Set, hide_possible_values = true)]
    pub serve_external_ips: bool,

    /// Root of the cgroup v2 tree whose sockets are served [default: found in /proc/mounts]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,

    /// Devices to serve for traffic from outside [default: found by their role, and followed]
    #[arg(long, value_name = "GLOB[,GLOB]", value_delimiter = ',')]
    pub devices: Vec<DeviceGlob>,

    /// Devices that lead to pods, for those whose sockets are not seen at the cgroup root; `none`:
    /// no device [default: found by their role, and followed]
    #[arg(long, value_name = "GLOB[,GLOB]", value_delimiter = ',')]
    pub pod_devices: Vec<DeviceGlob>,

    /// Whose sockets get a backend when they connect; the packets of others are translated
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t = SocketLb::All)]
    pub socket_lb: SocketLb,

    /// Pods with an address in one of these ranges are opted out of the socket path: their sockets keep
    /// the frontend, their packets are translated
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',')]
    pub socket_lb_skip_pod_cidrs: Vec<PodRange>,

    /// Pods of these namespaces are opted out of the socket path, too
    #[arg(long, value_name = "NAMESPACE[,NAMESPACE]", value_delimiter = ',')]
    pub socket_lb_skip_namespaces: Vec<NamespaceName>,

    /// Who changes the source of connections to backends on other nodes: the BPF programs, or
    /// netfilter where they cannot; or netfilter always
    #[arg(long, value_enum, value_name = "WHO", default_value_t = Snat::Bpf)]
    pub snat: Snat,

    /// Source ports for connections to backends on other nodes: ports that nothing else on the node
    /// uses [default: the largest range outside ip_local_port_range and 30000-32767]
    #[arg(long, value_name = "LOW-HIGH")]
    pub snat_ports: Option<PortRange>,

    /// How long flows in a state are kept without a packet (`kproxy dump flows` shows the states)
    /// [default: what net.netfilter has, else conntrack's times]
    #[arg(long, value_name = "STATE=DURATION[,STATE=DURATION]", value_delimiter = ',')]
    pub flow_timeouts: Vec<StateTimeout>,

    /// How backends are picked for new connections, where the annotation `kproxy.dev/lb-algorithm` of
    /// a Service does not say
    #[arg(long, value_name = "NAME", default_value = Algorithm::RoundRobin.name(),
          value_parser = super::values::algorithm())]
    pub lb_algorithm: Algorithm,

    /// Capacity that the service map grows to at most: two entries a service port and family
    #[arg(long, value_name = "N", default_value_t = MapSize(abi::MOST_SERVICES))]
    pub max_services: MapSize,

    /// Capacity that the slot map grows to at most: one entry a backend and set, and room for changes
    /// in flight
    #[arg(long, value_name = "N", default_value_t = MapSize(abi::MOST_SLOTS))]
    pub max_slots: MapSize,

    /// Capacity that the frontend map grows to at most: one entry an address, port and protocol that
    /// clients dial
    #[arg(long, value_name = "N", default_value_t = MapSize(abi::MOST_FRONTENDS))]
    pub max_frontends: MapSize,

    /// Capacity of the flow map: two entries a connection on the packet path
    #[arg(long, value_name = "N", default_value_t = MapSize(abi::DEFAULT_FLOWS))]
    pub max_flows: MapSize,

    /// Capacity of the affinity map: one entry a client and service port with session affinity
    #[arg(long, value_name = "N", default_value_t = MapSize(abi::DEFAULT_AFFINITY))]
    pub max_affinity: MapSize,

    /// Capacity of the range map: one entry a source range and service port
    #[arg(long, value_name = "N", default_value_t = MapSize(abi::DEFAULT_RANGES))]
    pub max_ranges: MapSize,

    /// Remove all that is left of kproxy on this node, as `kproxy cleanup` does, and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub cleanup: bool,

    /// Set the kernel's connection tracking, and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub init_only: bool,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,

    /// Where the daemon keeps its pid and its list of problems.
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// Who changes the source of connections to backends on other nodes.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snat {
    /// The BPF programs; netfilter only for devices without an Ethernet header
    Bpf,
    /// Netfilter, by a masquerade rule
    Netfilter,
}

/// Whose sockets get a backend when they connect.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketLb {
    /// Those of the node and of its pods
    All,
    /// Those of the node; packets of pods are translated at their link, so that what runs inside a
    /// pod (the sidecar of a mesh) sees the ClusterIP
    Host,
    /// Nobody's: no hook is attached to the cgroup, and packets of the node's own processes are
    /// translated where they leave
    None,
}

/// Where the maps are pinned.
#[derive(Args, Debug, Clone)]
pub(super) struct PinArgs {
    /// bpffs folder under which kproxy pins maps, programs and links
    #[arg(long, value_name = "DIR", default_value = BPFFS_ROOT)]
    pub bpffs_root: PathBuf,
}

/// Where the daemon keeps what others read.
#[derive(Args, Debug, Clone)]
pub(super) struct RunDirArgs {
    /// Folder of the daemon's pid and of its list of problems
    #[arg(long, value_name = "DIR", default_value = "/run/kproxy")]
    pub run_dir: PathBuf,
}

/// `kproxy dump`
#[derive(Args, Debug)]
pub(super) struct DumpArgs {
    /// Table to show
    #[arg(value_enum)]
    pub table: DumpTable,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Which rows to print.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// What `kproxy dump` can show.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DumpTable {
    /// What clients dial, and how many backends it leads to
    Frontends,
    /// Service ports: their frontends and backend sets
    Services,
    /// Endpoints that connections are sent to
    Backends,
    /// Connections that the packet path translates now
    Flows,
    /// Backends that clients of Services with session affinity were given last
    Affinity,
    /// Connections, packets, bytes and refusals of each service port
    Counters,
    /// Addresses known as a whole: this node's and the ClusterIPs
    Addresses,
    /// Every table
    All,
}

impl DumpTable {
    /// The word that is typed.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Frontends => "frontends",
            Self::Services => "services",
            Self::Backends => "backends",
            Self::Flows => "flows",
            Self::Affinity => "affinity",
            Self::Counters => "counters",
            Self::Addresses => "addresses",
            Self::All => "all",
        }
    }
}

/// How to print.
#[derive(Args, Debug, Clone, Copy)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
}

/// Output formats.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The main columns; fitted to the width of a terminal
    Table,
    /// Every column, never shortened
    Wide,
    /// JSON with stable keys
    Json,
    /// The same as YAML
    Yaml,
}

/// Which rows to print: all given conditions must hold.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Only Services of this namespace
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Only this Service: NAME, NAMESPACE/NAME or NAMESPACE/NAME:PORT
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(services))]
    pub service: Option<ServiceFilter>,

    /// Only rows with this address or an address of this range
    #[arg(long, value_name = "IP|CIDR")]
    pub address: Option<AddressFilter>,

    /// Only rows with this port number or port name
    #[arg(long, value_name = "NUMBER|NAME")]
    pub port: Option<PortFilter>,
}

/// `kproxy explain`
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// What is dialled: ADDRESS[:PORT] or [NAMESPACE/]SERVICE[:PORT], with /tcp, /udp or /sctp behind it
    /// if need be
    #[arg(value_name = "ADDRESS:PORT|SERVICE", add = ArgValueCompleter::new(services))]
    pub target: Target,

    /// Who dials: the address of a pod, of this node or of a client outside, or one of the words node,
    /// pod and outside [default: each of the three]
    #[arg(long, value_name = "WHO")]
    pub from: Option<Who>,

    /// Run the programs on a made packet, too, in maps of their own, and say whether they do what is
    /// explained
    #[arg(long)]
    pub simulate: bool,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,

    /// Where the daemon keeps its pid and its list of problems.
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// `kproxy sockets`
#[derive(Args, Debug)]
pub(super) struct SocketsArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Which rows to print.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Only sockets of the process with this id
    #[arg(long, value_name = "PID", help_heading = "Filters")]
    pub pid: Option<i32>,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `kproxy status`
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Only say whether the daemon has brought this node in step with the cluster and keeps it so: for the
    /// readiness probe of its pod
    #[arg(long, conflicts_with = "live")]
    pub ready: bool,

    /// Only say whether the daemon answers: for the liveness and startup probes of its pod
    #[arg(long)]
    pub live: bool,

    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,

    /// Where the daemon keeps its pid and its list of problems.
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// `kproxy top`
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// Time from one look at the maps to the next, like 2s or 1m
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub interval: Timeout,

    /// Print one table and end; numbers a second are of one interval. Without a terminal that is what is done
    #[arg(long)]
    pub once: bool,

    /// Print so many tables, one an interval, and end
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "once",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: Option<u32>,

    /// What Services and backends are sorted by, the most first
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = TopSort::New)]
    pub sort: TopSort,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// Columns of `kproxy top`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopSort {
    /// New connections a second
    New,
    /// Open flows
    Open,
    /// Packets and calls that are refused or dropped, a second
    Drops,
    /// Connections that nobody answers
    Failures,
}

/// `kproxy trace`
#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    /// Only this Service: NAME, NAMESPACE/NAME or NAMESPACE/NAME:PORT
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(services))]
    pub service: Option<ServiceFilter>,

    /// Only what has this address, and port, as sender, frontend or backend
    #[arg(long, value_name = "IP[:PORT]")]
    pub address: Option<Endpoint>,

    /// Only what the pod with this address sends or is given; its sockets, too
    #[arg(long, value_name = "IP")]
    pub pod: Option<IpAddr>,

    /// Only what is refused or dropped for this reason
    #[arg(long, value_name = "REASON[,REASON]", value_delimiter = ',',
          value_parser = super::values::drop_reason())]
    pub reason: Vec<DropReason>,

    /// Only what is refused or dropped
    #[arg(long)]
    pub drops: bool,

    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = TraceFormat::Table)]
    pub output: TraceFormat,

    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after this time, like 90s or 5m [default: until Ctrl-C]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Timeout>,

    /// Events a second that each CPU tells at most; the rest is counted
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// Output formats of `kproxy trace`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TraceFormat {
    /// One line an event; broken to fit a narrow terminal
    Table,
    /// One JSON object a line
    Json,
}

/// `kproxy cleanup`
#[derive(Args, Debug)]
pub(super) struct CleanupArgs {
    /// Remove kube-proxy's rules instead, of all its modes (nftables, iptables, ipvs), and nothing of kproxy: once
    /// kproxy serves in its place
    #[arg(long, conflicts_with = "stay")]
    pub kube_proxy: bool,

    /// Print what --kube-proxy would remove, and remove nothing
    #[arg(long, requires = "kube_proxy")]
    pub dry_run: bool,

    /// Clean up although a daemon is running, which puts everything back within seconds: stop it
    /// before or at once afterwards. With --kube-proxy: although kube-proxy is running, kproxy does not serve, or
    /// connections end
    #[arg(long)]
    pub force: bool,

    /// Translate nothing new, wait until what is translated has ended, and clean up then. To be used
    /// when kube-proxy or another kproxy's rules are in place. With --kube-proxy: wait until what kube-proxy has
    /// opened has ended
    #[arg(long, conflicts_with = "force")]
    pub drain: bool,

    /// Longest time to wait with --drain, like 90s, 5m or 1h30m; what is open then is left to netfilter, which
    /// needs the other's rules to go on with it [default: until
    /// all has ended]
    #[arg(long, value_name = "DURATION", requires = "drain")]
    pub timeout: Option<Timeout>,

    /// When all is removed, stay until told to end (SIGTERM, SIGINT): for a pod that would be started
    /// again
    #[arg(long)]
    pub stay: bool,

    /// Where the maps are pinned.
    #[command(flatten)]
    pub pins: PinArgs,

    /// Where the daemon keeps its pid and its list of problems.
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// `kproxy bugreport`
#[derive(Args, Debug)]
pub(super) struct BugreportArgs {
    /// The archive, which must not be there yet [default: kproxy-NODE-TIME.tar.gz in this folder]
    #[arg(short = 'o', long, value_name = "FILE.tar.gz")]
    pub output: Option<PathBuf>,

    /// bpffs folder under which kproxy pins maps, programs and links [default: the daemon's]
    #[arg(long, value_name = "DIR")]
    pub bpffs_root: Option<PathBuf>,

    /// Where the daemon keeps its pid and its list of problems.
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// `kproxy version`
#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `kproxy completions`
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `kproxy man`
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Folder that is there: one page a verb is written into it
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}
