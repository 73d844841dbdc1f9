//! Ctrl-C and SIGTERM: remove this process's labs, then end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::signal::unix::{SignalKind, signal};

use super::clean::clean;

/// Ids of the labs of this process.
static LABS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Whether a signal has arrived.
static ENDING: AtomicBool = AtomicBool::new(false);

fn labs() -> MutexGuard<'static, BTreeSet<String>> {
    LABS.lock()
}

pub(crate) fn remember(id: &str) {
    labs().insert(id.to_owned());
}

pub(crate) fn forget(id: &str) {
    labs().remove(id);
}

/// After a signal: leaves the rest to the signal's thread, which ends the process. The other
/// threads would only report that their lab has vanished.
pub(crate) fn park_if_ending() {
    while ENDING.load(Ordering::Relaxed) {
        thread::park();
    }
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
        ENDING.store(true, Ordering::Relaxed);
        let labs: Vec<String> = labs().iter().cloned().collect();
        for id in labs {
            if let Err(error) = clean(&id) {
                eprintln!("kproxy-lab: remove lab {id}: {error:#}");
            }
        }
        std::process::exit(128 + kind.as_raw_value());
    });
    Ok(())
}
