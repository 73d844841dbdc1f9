//! `kproxy run`: the daemon.

use anyhow::{Result, bail};

use super::Exit;
use super::args::RunArgs;

/// Runs the daemon.
///
/// # Errors
/// Always: this build has no daemon.
pub fn run(_args: RunArgs) -> Result<Exit> {
    bail!("this build has no daemon; build kproxy from its main branch")
}
