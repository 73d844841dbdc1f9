//! Many half-open connections, then honest clients.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use kproxy_lab::Family;

use crate::chaos::{
    clients::{at_once, quiet},
    report::Row,
    stage::{Daemon, Effort, Stage, Target},
};

/// SYNs: more than there are source ports.
const SYNS: u64 = 45_000;
/// Clients that connect at once.
const CLIENTS: usize = 20;
/// Time between their two attempts.
const LATER: Duration = Duration::from_secs(5);
/// Time of the quiet run.
const QUIET: Duration = Duration::from_secs(2);

/// Attacks.
pub(super) fn run(target: &Target, family: Family, daemon: Daemon, effort: Effort) -> Result<Row> {
    let stage = Stage::new(&[])?;
    let client = stage.client();
    let to = stage.frontend(target, family);
    let probe = target.probe(to);

    let standing = stage.stand(target, family)?;
    let before = quiet(&client, &probe, QUIET)?;
    stage.begin(daemon)?;
    // However long it takes: the number is what counts.
    let flood = stage.flood(target.flood(to, effort).duration(Duration::MAX).count(SYNS))?;
    let seen = at_once(&client, &probe, CLIENTS)?;
    sleep(LATER);
    let seen = seen.and(at_once(&client, &probe, CLIENTS)?);
    let (standing, lost) = standing.end()?;
    Ok(Row {
        attempted: seen.attempted,
        failed: seen.failed,
        standing,
        lost,
        quiet: before.times(),
        attacked: seen.times(),
        sent: flood.sent,
        rate: flood.rate(),
        ..Row::default()
    })
}
