//! Short and half-open connections with few source ports for backends elsewhere.

use anyhow::Result;
use kproxy_lab::{Family, FloodReport};

use crate::chaos::{
    clients::{Seen, one_by_one},
    report::Row,
    stage::{Daemon, Effort, Stage, Target},
};

/// Source ports: three hundred.
const PORTS: &str = "20000-20299";
/// Turns of short connections and a flood.
const ROUNDS: u32 = 5;
/// Short connections a round, one after the other.
const ONE_BY_ONE: usize = 800;
/// Half-open connections a round.
const SYNS: u64 = 2000;

/// Attacks.
pub(super) fn run(target: &Target, family: Family, daemon: Daemon, effort: Effort) -> Result<Row> {
    let stage = Stage::new(&["--snat-ports", PORTS])?;
    let client = stage.client();
    let to = stage.frontend(target, family);
    let probe = target.probe(to);

    let standing = stage.stand(target, family)?;
    stage.begin(daemon)?;
    let (mut seen, mut sent) = (Seen::default(), FloodReport::default());
    for round in 0..ROUNDS {
        seen = seen.and(one_by_one(&client, &probe, ONE_BY_ONE, effort.time / ROUNDS)?);
        let flood = target.flood(to, effort).count(SYNS).seed(round.into());
        let flood = stage.flood(flood)?;
        sent.sent += flood.sent;
        sent.nanoseconds += flood.nanoseconds;
    }
    let (standing, lost) = standing.end()?;
    Ok(Row {
        attempted: seen.attempted,
        failed: seen.failed,
        standing,
        lost,
        attacked: seen.times(),
        sent: sent.sent,
        rate: sent.rate(),
        ..Row::default()
    })
}
