//! The command line: arguments, one file a verb, and printers.
//!
//! Data goes to standard output and everything else to standard error. A reader that hangs up
//! (`kproxy dump all | head`) is no error. Under the name kube-proxy the binary takes the flags of
//! `kproxy run` and no verb, as kube-proxy does.

mod args;
mod bugreport;
mod check;
mod cleanup;
mod complete;
mod config;
mod diff;
mod dump;
mod exit;
mod explain;
mod kube_proxy_flags;
mod log;
mod render;
mod run;
mod sockets;
mod started;
mod status;
#[cfg(test)]
mod tests;
mod top;
mod trace;
mod values;
mod verify;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser as _};
use tracing::warn;

use args::{CleanupArgs, Cli, Command, Format, KubeProxyCli, OutputArgs, RunArgs, VersionArgs};
use exit::Exit;
use kube_proxy_flags::{is_kube_proxy, with_hyphens};
use log::LogFormat;
use render::{Look, note};

use crate::config::InForce;
use crate::errors::with_causes;

/// Parses the command line, does what it says, and tells how the process must exit.
pub fn main() -> ExitCode {
    complete::answer();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let result = if is_kube_proxy(arguments.first()) {
        let cli = KubeProxyCli::parse_from(with_hyphens(arguments));
        as_kube_proxy(cli)
    } else {
        let matches = Cli::command().get_matches_from(arguments);
        // What does not fit the types has ended the process with the usage.
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        dispatch(cli, &matches)
    };
    match result {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::No) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("kproxy: {}", with_causes(error.as_ref())));
            ExitCode::from(2)
        }
    }
}

fn as_kube_proxy(cli: KubeProxyCli) -> Result<Exit> {
    let KubeProxyCli { run, version, log_level } = cli;
    if version.is_some_and(|version| version != "false") {
        let output = OutputArgs { output: Format::Table };
        return print(|_, out| version::run(VersionArgs { output }, out));
    }
    start(run, log_level.as_deref())
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> Result<Exit> {
    let Cli { command, log_level } = cli;
    let log_level = log_level.as_deref();
    if !matches!(command, Command::Run(_) | Command::Config(_)) {
        log::init(typed(log_level).unwrap_or("warn"), LogFormat::Text)?;
    }
    match command {
        Command::Run(args) => start(*args, log_level),
        Command::Config(args) => {
            let in_force = run::in_force(&args.run)?;
            log::init(typed(log_level).unwrap_or("warn"), LogFormat::Text)?;
            tell(&in_force);
            let matches = matches.subcommand_matches("config").unwrap_or(matches);
            let format = args.output.output;
            print(|look, out| config::run(format, matches, &in_force, look, out))
        }
        Command::Check(args) => {
            let in_force = run::in_force(&args.run)?;
            tell(&in_force);
            let settings = run::settings(args.run, in_force.config)?;
            print(|look, out| check::run(&settings, args.output.output, look, out))
        }
        Command::Diff(args) => {
            let matches = matches.subcommand_matches("diff").unwrap_or(matches);
            print(|look, out| diff::run(*args, matches, look, out))
        }
        Command::Dump(args) => print(|look, out| dump::run(args, look, out)),
        Command::Explain(args) => print(|look, out| explain::run(args, look, out)),
        Command::Sockets(args) => print(|look, out| sockets::run(args, look, out)),
        Command::Status(args) => print(|look, out| status::run(args, look, out)),
        Command::Bugreport(args) => print(|look, out| bugreport::run(&args, look, out)),
        Command::Top(args) => print(|look, out| top::run(args, look, out)),
        Command::Trace(args) => print(|look, out| trace::run(args, look, out)),
        Command::Cleanup(args) => print(|_, out| cleanup::run(args, out)),
        Command::Verify(args) => {
            let matches = matches.subcommand_matches("verify").unwrap_or(matches);
            print(|look, out| verify::run(*args, matches, look, out))
        }
        Command::Version(args) => print(|_, out| version::run(args, out)),
        Command::Completions(args) => print(|_, out| complete::script(&args, out)),
        Command::Man(args) => complete::man(&args),
    }
}

/// The daemon, or what of it ends at once.
fn start(args: RunArgs, log_level: Option<&str>) -> Result<Exit> {
    let in_force = run::in_force(&args)?;
    let logging = &in_force.config.logging;
    let format = if logging.format == "json" { LogFormat::Json } else { LogFormat::Text };
    log::init(typed(log_level).unwrap_or(log::level_of(logging.verbosity)), format)?;
    tell(&in_force);
    if args.cleanup {
        let RunArgs { pins, run_dir, .. } = args;
        let args = CleanupArgs {
            force: false,
            drain: false,
            timeout: None,
            stay: false,
            kube_proxy: false,
            dry_run: false,
            pins,
            run_dir,
        };
        return print(|_, out| cleanup::run(args, out));
    }
    run::run(args, in_force)
}

/// What is to be told of the configuration.
fn tell(in_force: &InForce) {
    for warning in &in_force.warnings {
        warn!("{warning}");
    }
}

fn typed(log_level: Option<&str>) -> Option<&str> {
    log_level.filter(|level| !level.is_empty())
}

/// Gives a verb standard output, buffered, and what suits it.
fn print(verb: impl FnOnce(&Look, &mut dyn Write) -> Result<Exit>) -> Result<Exit> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let exit = verb(&Look::of_stdout(), &mut out)?;
    out.flush()?;
    Ok(exit)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    error.chain().filter_map(io).any(|kind| kind == io::ErrorKind::BrokenPipe)
}
