//! `cargo xtask chaos flood`: every scenario with the daemon alive and with the daemon killed, each
//! time in a lab of its own, so that nothing of one attack is left for the next.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{
    report::{self, Row},
    scenario::{self, Scenario},
    stage::{Daemon, Effort},
};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos flood`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Scenarios to run (default: all).
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Seconds of one attack.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Packets a second; the machine may send fewer.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Five seconds an attack: whether the command works, not whether kproxy holds.
    #[arg(long, conflicts_with = "seconds")]
    quick: bool,
    /// Print the figures as JSON and nothing else to standard output.
    #[arg(long)]
    json: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Runs the scenarios, prints the figures.
///
/// # Errors
/// When the lab cannot be made, or a bound is broken.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::Manifests)?;
    kproxy_lab::clean_on_signals()?;
    let seconds = if options.quick { 5 } else { options.seconds };
    let effort = Effort { time: Duration::from_secs(seconds), rate: options.rate };
    let scenarios =
        if options.scenarios.is_empty() { &Scenario::ALL[..] } else { &options.scenarios[..] };

    let mut rows: Vec<Row> = Vec::new();
    for scenario in scenarios {
        for case in scenario.cases() {
            say::heading(format!("{scenario}: {case}"));
            for daemon in Daemon::BOTH {
                let started = Instant::now();
                let row = scenario::run(*scenario, *case, daemon, effort)
                    .with_context(|| format!("{scenario}: {case}, daemon {daemon}"))?;
                let took = say::duration(started.elapsed());
                say::line(format!("daemon {daemon}: {} ({took})", row.verdict()));
                rows.push(row);
            }
        }
    }
    if options.json {
        println!("{}", report::json(&rows).context("write the figures")?);
    } else {
        print!("{}", report::table(&rows));
        let sum = |of: fn(&Row) -> usize| rows.iter().map(of).sum();
        let connections = sum(|row| row.attempted + row.standing);
        let failed = sum(|row| row.failed + row.lost);
        println!("{}", report::last_line(rows.len(), connections, failed));
    }
    let broken = rows.iter().filter(|row| !row.broken().is_empty()).count();
    if broken > 0 {
        bail!("{broken} of {} attacks broke a bound", rows.len());
    }
    Ok(())
}
