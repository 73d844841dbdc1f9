//! Shell completion, and the manual pages.
//!
//! The script that `kproxy completions` prints asks the binary itself at each key, so that it knows the Services
//! that the maps hold; without the right to read them it completes the rest.

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Shells};

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::exit::Exit;

/// By this variable the script asks.
const VARIABLE: &str = "KPROXY_COMPLETE";

/// Answers a shell that asks, and ends; returns where none does.
pub(super) fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Prints the script for a shell.
///
/// # Errors
/// Those of the writer.
pub(super) fn script(args: &CompletionsArgs, out: &mut dyn Write) -> Result<Exit> {
    let (shells, shell) = (Shells::builtins(), args.shell.to_string());
    let shell = shells.completer(&shell).with_context(|| format!("know the shell {shell}"))?;
    shell.write_registration(VARIABLE, "kproxy", "kproxy", "kproxy", out)?;
    Ok(Exit::Fine)
}

/// Writes a manual page for each verb.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn man(args: &ManArgs) -> Result<Exit> {
    let folder = &args.folder;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("write manual pages into {}", folder.display()))?;
    Ok(Exit::Fine)
}
