//! What can be typed: clap types and nothing else.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use kproxy_common::abi;

use crate::plan::Algorithm;

mod common;
mod reading;

pub(super) use self::common::{FilterArgs, Format, OutputArgs, PinArgs, RunDirArgs};
pub(super) use self::reading::{
    BugreportArgs, DumpArgs, DumpTable, ExplainArgs, SocketsArgs, StatusArgs, TopArgs, TopSort,
    TraceArgs, TraceFormat,
};
use super::kube_proxy_flags::KubeProxyFlags;
use super::values::{
    DeviceGlob, MapSize, NamespaceName, PodRange, PortRange, StateTimeout, Timeout,
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
