//! `cargo xtask chaos`: attacks kproxy, and tells what honest clients lose.

mod clients;
mod control;
mod flood;
mod footprint;
mod host;
mod limits;
mod load;
mod report;
mod restart;
mod scenario;
mod soak;
mod stage;
mod takeover;
mod upgrade;

use anyhow::Result;

/// What is done to kproxy.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Kind {
    /// Floods, forged packets, full tables: what a host outside of the cluster can send.
    Flood(flood::Options),
    /// All that may be wrong with the API server, under load.
    Control(control::Options),
    /// Devices, addresses, routes, settings, rules and pins change under kproxy, under load.
    Host(host::Options),
    /// Tables at their limits, under load.
    Limits(limits::Options),
    /// kill -9 and start, over and over, under load.
    Restart(restart::Options),
    /// From the real kube-proxy to kproxy and back, over and over, under load.
    Takeover(takeover::Options),
    /// A long time of churn and faults under load: memory, files and threads of the daemon.
    Soak(soak::Options),
    /// To other builds and other layouts of the maps and back, over and over, under load.
    Upgrade(upgrade::Options),
}

/// Attacks, prints what came of it.
///
/// # Errors
/// When the lab cannot be made, or a bound is broken.
pub(crate) fn run(kind: &Kind) -> Result<()> {
    match kind {
        Kind::Control(options) => control::run(options),
        Kind::Soak(options) => soak::run(options),
        Kind::Flood(options) => flood::run(options),
        Kind::Host(options) => host::run(options),
        Kind::Limits(options) => limits::run(options),
        Kind::Restart(options) => restart::run(options),
        Kind::Takeover(options) => takeover::run(options),
        Kind::Upgrade(options) => upgrade::run(options),
    }
}
