//! What several verbs take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::cli::values::{AddressFilter, BPFFS_ROOT, PortFilter, ServiceFilter, services};

/// Where the maps are pinned.
#[derive(Args, Debug, Clone)]
pub(in crate::cli) struct PinArgs {
    /// bpffs folder under which kproxy pins maps, programs and links
    #[arg(long, value_name = "DIR", default_value = BPFFS_ROOT)]
    pub bpffs_root: PathBuf,
}

/// Where the daemon keeps what others read.
#[derive(Args, Debug, Clone)]
pub(in crate::cli) struct RunDirArgs {
    /// Folder of the daemon's pid and of its list of problems
    #[arg(long, value_name = "DIR", default_value = "/run/kproxy")]
    pub run_dir: PathBuf,
}

/// How to print.
#[derive(Args, Debug, Clone, Copy)]
pub(in crate::cli) struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
}

/// Output formats.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Format {
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
pub(in crate::cli) struct FilterArgs {
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
