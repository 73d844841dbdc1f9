//! `cargo xtask chaos`: attacks kproxy, and tells what honest clients lose.

mod clients;
mod flood;
mod load;
mod report;
mod restart;
mod scenario;
mod stage;
mod takeover;
mod upgrade;

use anyhow::Result;

/// What is done to kproxy.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Kind {
    /// Floods, forged packets, full tables: what a host outside of the cluster can send.
    Flood(flood::Options),
    /// kill -9 and start, over and over, under load.
    Restart(restart::Options),
    /// From the real kube-proxy to kproxy and back, over and over, under load.
    Takeover(takeover::Options),
    /// To other builds and other layouts of the maps and back, over and over, under load.
    Upgrade(upgrade::Options),
}

/// Attacks, prints what came of it.
///
/// # Errors
/// When the lab cannot be made, or a bound is broken.
pub(crate) fn run(kind: &Kind) -> Result<()> {
    match kind {
        Kind::Flood(options) => flood::run(options),
        Kind::Restart(options) => restart::run(options),
        Kind::Takeover(options) => takeover::run(options),
        Kind::Upgrade(options) => upgrade::run(options),
    }
}
