//! Short connections with a flow table that is too small for all that were ever open.

use anyhow::Result;
use kproxy_lab::Family;

use crate::chaos::{
    clients::{at_once, one_by_one},
    report::Row,
    stage::{Daemon, Effort, Stage, Target},
};

/// Entries of the flow table.
const FLOWS: &str = "400";
/// Connections one after the other, before and after the daemon's end.
const ONE_BY_ONE: usize = 1000;
/// Connections at once.
const AT_ONCE: usize = 260;

/// Attacks.
pub(super) fn run(target: &Target, family: Family, daemon: Daemon, effort: Effort) -> Result<Row> {
    let stage = Stage::new(&["--max-flows", FLOWS])?;
    let client = stage.client();
    let probe = target.probe(stage.frontend(target, family));
    let fill = one_by_one(&client, &probe, ONE_BY_ONE, effort.time)?;
    stage.begin(daemon)?;
    let seen = fill
        .and(one_by_one(&client, &probe, ONE_BY_ONE, effort.time)?)
        .and(at_once(&client, &probe, AT_ONCE)?);
    Ok(Row {
        attempted: seen.attempted,
        failed: seen.failed,
        attacked: seen.times(),
        ..Row::default()
    })
}
