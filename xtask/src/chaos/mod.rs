//! `cargo xtask chaos`: attacks kproxy, and tells what honest clients lose.

mod clients;
mod flood;
mod report;
mod scenario;
mod stage;

use anyhow::Result;

/// What is done to kproxy.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Kind {
    /// Floods, forged packets, full tables: what a host outside of the cluster can send.
    Flood(flood::Options),
}

/// Attacks, prints what came of it.
///
/// # Errors
/// When the lab cannot be made, or a bound is broken.
pub(crate) fn run(kind: &Kind) -> Result<()> {
    match kind {
        Kind::Flood(options) => flood::run(options),
    }
}
