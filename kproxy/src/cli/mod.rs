//! The command line: arguments, one file a verb, and printers.
//!
//! Data goes to standard output and everything else to standard error. A reader that hangs up
//! (`kproxy dump all | head`) is no error.

mod args;
mod cleanup;
mod dump;
mod exit;
mod explain;
mod log;
mod render;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod values;
mod version;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};
use exit::Exit;
use render::{Look, note};

use crate::errors::with_causes;

/// Parses the command line, does what it says, and tells how the process must exit.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::No) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("kproxy: {}", with_causes(error.as_ref())));
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit> {
    let Cli { command, log_level } = cli;
    let usual = if matches!(command, Command::Run(_)) { "info" } else { "warn" };
    log::init(log_level.as_deref().filter(|level| !level.is_empty()).unwrap_or(usual))?;
    match command {
        Command::Run(args) => run::run(*args),
        Command::Dump(args) => print(|look, out| dump::run(args, look, out)),
        Command::Explain(args) => print(|look, out| explain::run(args, look, out)),
        Command::Status(args) => print(|look, out| status::run(args, look, out)),
        Command::Cleanup(args) => print(|_, out| cleanup::run(args, out)),
        Command::Version(args) => print(|_, out| version::run(args, out)),
        Command::Completions(args) => print(|_, out| {
            // Into memory first: clap_complete panics when its writer fails.
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "kproxy", &mut script);
            out.write_all(&script)?;
            Ok(Exit::Fine)
        }),
    }
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
