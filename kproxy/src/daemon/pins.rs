//! Hears of pins that somebody takes away: what hangs on a link's pin alone is off its device with it.

use std::path::PathBuf;

use futures::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};

/// Listens at the folders of pins. Where the kernel gives no inotify instance, nothing is ever heard, and looking
/// from time to time must do.
pub(super) struct PinWatch(Option<EventStream<[u8; 4096]>>);

impl PinWatch {
    pub(super) fn new() -> Self {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 4096]));
        Self(stream.inspect_err(|error| tracing::debug!(%error, "no inotify for pins")).ok())
    }

    /// Listens at these folders, which may have been made anew.
    pub(super) fn follow(&mut self, folders: &[PathBuf]) {
        let Some(stream) = &mut self.0 else { return };
        for folder in folders {
            // A folder that is missing is made again with the next look.
            let mask = WatchMask::DELETE | WatchMask::DELETE_SELF | WatchMask::ONLYDIR;
            stream.watches().add(folder, mask).ok();
        }
    }

    /// Forgets what has been heard: whoever looks now sees it.
    pub(super) fn forget(&mut self) {
        let Some(stream) = &mut self.0 else { return };
        while stream.next().now_or_never().flatten().is_some() {}
    }

    /// Waits until a pin is taken away.
    pub(super) async fn taken(&mut self) {
        if let Some(stream) = &mut self.0
            && stream.next().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_taken_away_is_heard_also_in_a_folder_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("links"), dir.path().join("links/a"));
        let mut watch = PinWatch::new();
        for _ in 0..2 {
            fs::create_dir(&folder).unwrap();
            fs::write(&file, "").unwrap();
            watch.forget();
            watch.follow(&[dir.path().join("none"), folder.clone()]);
            let silence = tokio::time::timeout(Duration::from_millis(20), watch.taken()).await;
            assert!(silence.is_err(), "nothing was taken");
            fs::remove_file(&file).unwrap();
            watch.taken().await;
            fs::remove_dir(&folder).unwrap();
        }
    }
}
