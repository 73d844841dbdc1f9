//! What the verbs take that read what is there.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use kproxy_common::drop_reason::DropReason;

use super::common::{FilterArgs, OutputArgs, PinArgs, RunDirArgs};
use crate::cli::values::{Endpoint, ServiceFilter, Target, Timeout, Who, drop_reason, services};

/// `kproxy dump`
#[derive(Args, Debug)]
pub(in crate::cli) struct DumpArgs {
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
pub(in crate::cli) enum DumpTable {
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
    pub(in crate::cli) const fn name(self) -> &'static str {
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

/// `kproxy explain`
#[derive(Args, Debug)]
pub(in crate::cli) struct ExplainArgs {
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
pub(in crate::cli) struct SocketsArgs {
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
pub(in crate::cli) struct StatusArgs {
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
pub(in crate::cli) struct TopArgs {
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
pub(in crate::cli) enum TopSort {
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
pub(in crate::cli) struct TraceArgs {
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
          value_parser = drop_reason())]
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
pub(in crate::cli) enum TraceFormat {
    /// One line an event; broken to fit a narrow terminal
    Table,
    /// One JSON object a line
    Json,
}

/// `kproxy bugreport`
#[derive(Args, Debug)]
pub(in crate::cli) struct BugreportArgs {
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
