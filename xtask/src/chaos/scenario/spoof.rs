//! Forged packets on idle connections, each on one of its own.

use std::thread;

use anyhow::{Result, anyhow};
use kproxy_lab::{Family, Forge, Forgery, Verdict};

use crate::chaos::{
    report::Row,
    stage::{Daemon, Stage, Target},
};

/// Attacks.
pub(super) fn run(target: &Target, family: Family, daemon: Daemon) -> Result<Row> {
    let stage = Stage::new(&[])?;
    let client = stage.client();
    let to = stage.frontend(target, family);
    stage.begin(daemon)?;
    let forge = &|forgery| client.forge(Forge::new(forgery, to));
    let verdicts = thread::scope(|scope| {
        let threads = Forgery::HARMLESS.map(|forgery| scope.spawn(move || forge(forgery)));
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_panic| anyhow!("a forger panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let lost: Vec<String> = Forgery::HARMLESS
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| !matches!(verdict, Verdict::Answered(_)))
        .map(|(forgery, verdict)| match verdict {
            Verdict::Failed(error) => format!("{forgery:?}: {error}"),
            other => format!("{forgery:?}: {other:?}"),
        })
        .collect();
    Ok(Row {
        standing: verdicts.len(),
        lost: lost.len(),
        sent: verdicts.len() as u64,
        note: lost.join(", "),
        ..Row::default()
    })
}
