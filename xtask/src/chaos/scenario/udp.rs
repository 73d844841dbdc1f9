//! A flood of datagrams: dialogues keep their backend, honest questions are answered.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use kproxy_lab::{Family, Held, Hold};

use crate::chaos::{
    clients::{Seen, during, quiet},
    report::Row,
    stage::{Daemon, Effort, Stage, Target},
};

/// Dialogues that stand: some on each backend.
const DIALOGUES: usize = 8;
/// Time between an answer and the next request of a dialogue.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Attacks.
pub(super) fn run(target: &Target, family: Family, daemon: Daemon, effort: Effort) -> Result<Row> {
    let stage = Stage::new(&[])?;
    let client = stage.client();
    let to = stage.frontend(target, family);
    let probe = target.probe(to);

    let dialogues = (0..DIALOGUES)
        .map(|_| client.hold(Hold::udp(to).pause(PAUSE).timeout(PATIENCE)))
        .collect::<Result<Vec<_>>>()?;
    let before = quiet(&client, &probe, effort.shorter().time)?;
    let lost_before = dialogues.iter().map(missing).collect::<Result<Vec<_>>>()?;
    let (seen, flood) = during(&client, &probe, || {
        stage.begin(daemon)?;
        stage.flood(target.flood(to, effort))
    })?;
    sleep(PATIENCE);
    let (direct_before, direct_seen) = direct(&stage, target, family, effort)?;
    let (mut lost, mut requests, mut moved) = (0, 0, 0);
    for (dialogue, before) in dialogues.into_iter().zip(lost_before) {
        let missing = missing(&dialogue)?.saturating_sub(before);
        let has_moved = dialogue.stop()?.servers.len() > 1;
        lost += usize::from(missing > 0 || has_moved);
        moved += usize::from(has_moved);
        requests += missing;
    }
    let mut notes = seen.failures.clone();
    if lost > 0 {
        notes.push(format!("dialogues lost {requests} requests, {moved} moved"));
    }
    if direct_seen.failed > 0 {
        let Seen { failed, attempted, .. } = direct_seen;
        notes.push(format!("dialled itself, the backend fails {failed} of {attempted}"));
    }
    Ok(Row {
        attempted: seen.attempted,
        failed: seen.failed,
        standing: DIALOGUES,
        lost,
        quiet: before.times(),
        attacked: seen.times(),
        sent: flood.sent,
        rate: flood.rate(),
        direct: Some([direct_before.times(), direct_seen.times()]),
        note: notes.join(", "),
        ..Row::default()
    })
}

/// A backend itself, quiet and attacked.
fn direct(stage: &Stage, target: &Target, family: Family, effort: Effort) -> Result<(Seen, Seen)> {
    let (client, backend) = (stage.client(), stage.backend(target, family)?);
    let (probe, effort) = (target.probe(backend), effort.shorter());
    let before = quiet(&client, &probe, effort.time)?;
    let flood = target.flood(backend, effort).seed(1);
    let (seen, _) = during(&client, &probe, || stage.flood(flood))?;
    Ok((before, seen))
}

/// Requests of a dialogue that were not answered.
fn missing(dialogue: &Held) -> Result<u64> {
    let report = dialogue.report()?;
    Ok(report.sent - report.answered)
}
