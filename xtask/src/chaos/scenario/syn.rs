//! A SYN flood: standing connections live, honest clients go on connecting.

use anyhow::Result;
use kproxy_lab::Family;

use crate::chaos::{
    clients::{during, quiet},
    report::Row,
    stage::{Daemon, Effort, Stage, Target},
};

/// Attacks.
pub(super) fn run(target: &Target, family: Family, daemon: Daemon, effort: Effort) -> Result<Row> {
    let stage = Stage::new(&[])?;
    let client = stage.client();
    let (to, backend) = (stage.frontend(target, family), stage.backend(target, family)?);
    let (through, direct) = (target.probe(to), target.probe(backend));
    let short = effort.shorter();

    let standing = stage.stand(target, family)?;
    let before = quiet(&client, &through, short.time)?;
    let direct_before = quiet(&client, &direct, short.time)?;
    let (seen, flood) = during(&client, &through, || {
        stage.begin(daemon)?;
        stage.flood(target.flood(to, effort))
    })?;
    let (standing, lost) = standing.end()?;
    // Last: it leaves half-open connections at the backend.
    let (direct_seen, _) =
        during(&client, &direct, || stage.flood(target.flood(backend, short).seed(1)))?;
    Ok(Row {
        attempted: seen.attempted,
        failed: seen.failed,
        standing,
        lost,
        quiet: before.times(),
        attacked: seen.times(),
        direct: Some([direct_before.times(), direct_seen.times()]),
        sent: flood.sent,
        rate: flood.rate(),
        note: seen.failures.join(", "),
        ..Row::default()
    })
}
