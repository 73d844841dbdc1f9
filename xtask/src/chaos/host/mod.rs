//! `cargo xtask chaos host`: what happens to a node's devices, addresses, routes, settings, rules and pins while
//! clients connect and connections stand. Each must be seen, repaired where it is ours to repair, and reported.

mod faults;

use std::{
    fmt::Write as _,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kproxy_lab::{Family, poll_until};

use self::faults::{Fault, Seen, Traffic};
use super::{
    clients,
    load::{self, Tally},
    stage::{FAR, NEAR, Stage},
};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos host`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often all of it is done.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Once: whether the command works.
    #[arg(long, conflicts_with = "times")]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// How long kproxy may need to see something: settings of conntrack are read once a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);
/// How long a fault lasts of which nothing is to be said.
const LASTS: Duration = Duration::from_secs(2);
/// How long clients are at work after traffic has stopped and gone on.
const AFTER: Duration = Duration::from_secs(3);
/// How long a connection that stands waits for an answer while traffic stops: kproxy looks at settings every 15
/// seconds, and TCP tries again after up to as long as it has waited already.
const STANDS: Duration = Duration::from_secs(60);
/// Answers in a row after which traffic goes on.
const IN_A_ROW: usize = 5;

/// What came of a fault.
struct Row {
    fault: &'static Fault,
    /// Until it was seen; `None`: there is nothing to see.
    seen: Option<Duration>,
    /// From the fault's end, or from its beginning where it stops nothing, until a client outside and a pod were
    /// answered again and again.
    affected: Duration,
}

/// Does everything, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, a connection was lost, or a fault was not seen or not repaired.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::Manifests)?;
    kproxy_lab::clean_on_signals()?;
    let times = if options.quick { 1 } else { options.times };
    let stage = Stage::new(&[])?;
    say::heading(format!("{} faults of the host, {times} times", faults::ALL.len()));
    let (mut all, mut rows) = (Tally::default(), Vec::new());
    for _ in 0..times {
        let (harmless, others): (Vec<_>, Vec<_>) =
            faults::ALL.iter().partition(|fault| fault.traffic == Traffic::GoesOn);
        let standing = load::stand(&stage)?;
        for fault in harmless {
            let (row, tally) =
                load::under(&stage, |_| once(&stage, fault).with_context(|| fault.what))?;
            say::line(format!("{}: {tally}", fault.what));
            rows.push(row);
            all = all.and(tally);
        }
        all.end(standing)?;
        for fault in others {
            let standing = match fault.traffic {
                Traffic::Breaks => Vec::new(),
                _ => vec![
                    stage.stand_for(&NEAR, Family::V4, STANDS)?,
                    stage.stand_for(&FAR, Family::V4, STANDS)?,
                    stage.stand_for(&NEAR, Family::V6, STANDS)?,
                ],
            };
            rows.push(once(&stage, fault).with_context(|| fault.what)?);
            stage.wait_served()?;
            let ((), mut tally) = load::under(&stage, |_| {
                sleep(AFTER);
                Ok(())
            })?;
            tally.end(standing)?;
            say::line(format!("{}: {tally}", fault.what));
            all = all.and(tally);
        }
    }
    print!("\n{}", table(&rows)?);
    println!("\n{all}");
    all.conclude(rows.len())
}

/// Does one thing, waits until it is seen, undoes it, and waits until all is in order.
fn once(stage: &Stage, fault: &'static Fault) -> Result<Row> {
    let log_before = stage.proxy().log().len();
    let log = || stage.proxy().log().get(log_before..).unwrap_or_default().to_owned();
    let begun = Instant::now();
    stage.shell(fault.act)?;
    let mut affected = (fault.traffic == Traffic::GoesOn).then(|| gap(stage, begun)).transpose()?;
    let is_seen = || {
        Ok(match fault.seen {
            Seen::Silence => begun.elapsed() >= LASTS,
            Seen::Log(words) => log().contains(words),
            Seen::Device(name) => {
                stage.status()?["devices"].to_string().contains(&format!("\"{name}\""))
            }
            Seen::Address(ip) => {
                let to = SocketAddr::new(ip.parse()?, NEAR.node_port());
                clients::at_once(&stage.client(), &NEAR.probe(to).timeout(LOOK * 4), 1)?.failed == 0
            }
            Seen::Problem(words) => stage.status()?["problems"].to_string().contains(words),
        })
    };
    let is_there = poll_until(PATIENCE, LOOK, is_seen, |seen| *seen)?;
    ensure!(is_there, "not seen within {PATIENCE:?}: {:?}\n{}", fault.seen, log());
    let seen = begun.elapsed();
    let undone = Instant::now();
    stage.shell(fault.undo)?;
    if affected.is_none() {
        affected = Some(gap(stage, undone)?);
    }
    let in_order = || stage.status();
    let status = poll_until(PATIENCE, LOOK, in_order, |status| status["in_order"] == true)?;
    ensure!(status["in_order"] == true, "not in order again: {status}\n{}", log());
    if let Seen::Silence = fault.seen
        && let Some(line) =
            log().lines().find(|line| line.contains("WARN") || line.contains("ERROR"))
    {
        bail!("kproxy complains of what is no problem: {line}");
    }
    Ok(Row {
        fault,
        seen: (!matches!(fault.seen, Seen::Silence)).then_some(seen),
        affected: affected.unwrap_or_default(),
    })
}

/// Dials from outside and from a pod until both are answered again and again; when that began, counted from
/// `since`, and zero where nothing failed.
fn gap(stage: &Stage, since: Instant) -> Result<Duration> {
    let ways = [
        (stage.client(), NEAR.probe(stage.frontend(&NEAR, Family::V4))),
        (stage.pod()?, FAR.probe(stage.inside(&FAR, Family::V4)?)),
    ];
    let (mut row, mut failed) = (0, None);
    while row < IN_A_ROW {
        ensure!(since.elapsed() < PATIENCE, "traffic has stopped for {PATIENCE:?}");
        for (place, probe) in &ways {
            let seen = clients::at_once(place, &probe.clone().timeout(LOOK * 4), 1)?;
            if seen.failed > 0 {
                (row, failed) = (0, Some(since.elapsed()));
            }
        }
        row += 1;
    }
    Ok(failed.unwrap_or_default())
}

/// Of each fault the longest times.
fn table(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{:<46} {:>12} {:>18}", "FAULT", "SEEN AFTER", "TRAFFIC AFFECTED")?;
    for fault in faults::ALL {
        let of_fault = || rows.iter().filter(|row| row.fault.what == fault.what);
        let seen = of_fault().filter_map(|row| row.seen).max();
        let seen = seen.map_or_else(|| "-".to_owned(), |time| format!("{time:.1?}"));
        let affected = of_fault().map(|row| row.affected).max().unwrap_or_default();
        let affected = match (fault.traffic, affected.is_zero()) {
            (Traffic::GoesOn, true) => "not".to_owned(),
            (Traffic::GoesOn, false) => format!("{affected:.1?}"),
            (_, true) => "until undone".to_owned(),
            (_, false) => format!("until undone + {affected:.1?}"),
        };
        writeln!(text, "{:<46} {seen:>12} {affected:>24}", fault.what)?;
    }
    Ok(text)
}
