//! Ctrl-C and SIGTERM: remove this process's labs, then end.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::state;

/// Ids of the labs of this process.
static LABS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn labs() -> MutexGuard<'static, BTreeSet<String>> {
    LABS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn remember(id: &str) {
    labs().insert(id.to_owned());
}

pub(crate) fn forget(id: &str) {
    labs().remove(id);
}

/// From now on SIGINT, SIGTERM and SIGHUP remove the labs of this process and end it with the
/// status that shells give (128 + signal). Without this the watcher of each lab does the same just
/// after the process has ended.
///
/// # Errors
/// When no signal handler can be installed.
pub fn clean_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).context("handle SIGINT")?,
            signal(SignalKind::terminate()).context("handle SIGTERM")?,
            signal(SignalKind::hangup()).context("handle SIGHUP")?,
        )
    };
    thread::spawn(move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
            }
        });
        let labs: Vec<String> = labs().iter().cloned().collect();
        for id in labs {
            if let Err(error) = state::clean(&id) {
                eprintln!("kproxy-lab: remove lab {id}: {error:#}");
            }
        }
        std::process::exit(128 + kind.as_raw_value());
    });
    Ok(())
}
