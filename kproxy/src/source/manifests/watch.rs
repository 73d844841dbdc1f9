//! Follows the folder.

use std::time::Duration;

use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::error::Error;
use super::folder::{Folder, SETTLE};
use super::settings::Settings;
use crate::source::Event;

/// How long to collect further changes after the first: an editor writes, renames and deletes.
const COLLECT: Duration = Duration::from_millis(30);
/// Look again now and then: inotify sees no edit behind a symbolic link, and none on some network
/// file systems.
const RESCAN: Duration = Duration::from_secs(10);

/// Reads the folder, sends the complete lists, then follows its changes until `shutdown` or until
/// nobody listens to `events`.
///
/// # Errors
/// The folder is not there or cannot be watched at start. Later trouble is reported as a problem.
pub(crate) async fn run(
    settings: Settings,
    events: mpsc::Sender<Event>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let follow = follow(settings, events);
    shutdown.run_until_cancelled(follow).await.unwrap_or(Ok(()))
}

async fn follow(settings: Settings, events: mpsc::Sender<Event>) -> Result<(), Error> {
    let dir = settings.dir.clone();
    let unusable = |source| Error::Watch { dir: dir.clone(), source };
    let inotify = Inotify::init().map_err(unusable)?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    let mut watches = inotify.watches();
    watches.add(&dir, mask).map_err(unusable)?;
    let mut changes = inotify.into_event_stream([0; 4096]).map_err(unusable)?;
    info!(folder = %dir.display(), "reading manifests");

    let mut folder = Folder::new(settings);
    loop {
        // Reading and parsing may take a while: not on the threads that run the control loop.
        let task = tokio::task::spawn_blocking(move || {
            let scan = folder.scan();
            (folder, scan)
        });
        let scan;
        (folder, scan) = task.await.map_err(Error::Read)?;
        for event in scan.events {
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        let pause = if scan.unsettled { SETTLE } else { RESCAN };
        if timeout_at(Instant::now() + pause, changes.next()).await.is_ok() {
            sleep(COLLECT).await;
            while timeout_at(Instant::now(), changes.next()).await.is_ok_and(|e| e.is_some()) {}
        }
        // The folder may have been replaced by another one of the same name. The same folder
        // again is no new watch; a missing one is the scan's to report.
        watches.add(&dir, mask).ok();
    }
}
