//! kube-proxy's flags for clap, out of the one table of them.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::default_of;
use crate::config::flags::{FLAGS, Flag, Kind, Typed};

/// Whether the binary was started under kube-proxy's name.
pub(super) fn is_kube_proxy(program: Option<&OsString>) -> bool {
    program.and_then(|path| Path::new(path).file_name()) == Some(OsStr::new("kube-proxy"))
}

/// Go programs of Kubernetes take `--cluster_cidr` for `--cluster-cidr`.
pub(super) fn with_hyphens(arguments: Vec<OsString>) -> impl Iterator<Item = OsString> {
    arguments.into_iter().map(|argument| match argument.to_str() {
        Some(text) if text.starts_with("--") => {
            let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
            (name.replace('_', "-") + value).into()
        }
        _ => argument,
    })
}

/// Those that were typed.
#[derive(Clone, Debug)]
pub(super) struct KubeProxyFlags(pub Vec<Typed>);

/// Heading of those that are nothing here.
const WITHOUT_MEANING: &str = "Accepted as flags of kube-proxy, and told where they are given";

/// Flags of kube-proxy that are no field of its configuration and nothing here.
const NO_FIELD: [&str; 2] = ["boot-id-file", "machine-id-file"];

impl Args for KubeProxyFlags {
    fn augment_args(command: Command) -> Command {
        let command = command.args(FLAGS.iter().map(arg));
        let ignored = |name: &'static str| {
            Arg::new(name).long(name).value_name("FILE").action(ArgAction::Set).hide(true)
        };
        command.args(NO_FIELD.map(ignored))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KubeProxyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = |flag: &'static Flag| {
            let values: Vec<String> = matches.get_many(flag.name)?.cloned().collect();
            Some(Typed { flag, values })
        };
        Ok(Self(FLAGS.iter().filter_map(typed).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn arg(flag: &'static Flag) -> Arg {
    let kind = flag.kind;
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(value_name(kind))
        // What is typed again takes its place, as in Go.
        .action(if kind.adds_up() { ArgAction::Append } else { ArgAction::Set })
        .allow_hyphen_values(matches!(kind, Kind::Number | Kind::Decimal | Kind::Duration))
        .value_parser(move |text: &str| kind.parse(text).map(|_| text.to_owned()));
    let arg = if kind.adds_up() { arg } else { arg.overrides_with(flag.name) };
    let arg = match kind {
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    };
    let arg = if flag.name.len() == 1 { arg.short(flag.name.chars().next()) } else { arg };
    if flag.help.is_empty() {
        return arg.help_heading(WITHOUT_MEANING).help(format!("`{}`", flag.path));
    }
    let default = default_of(flag.path);
    let says = flag.help.contains("[default") || default.is_empty() || kind == Kind::Port;
    arg.help(if says {
        flag.help.to_owned()
    } else {
        format!("{} [default: {default}]", flag.help)
    })
}

const fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text(name) | Kind::List(name) => name,
        Kind::Address(_) => "IP:PORT",
        Kind::Number | Kind::Decimal => "N",
        Kind::Bool => "BOOL",
        Kind::Duration => "DURATION",
        Kind::Gates => "NAME=BOOL[,NAME=BOOL]",
        Kind::Vmodule => "PATTERN=N[,PATTERN=N]",
        Kind::Port => "PORT",
    }
}
