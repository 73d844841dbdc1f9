//! A child process that cleans a lab when its owner ends without doing so, SIGKILL included.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::clean::clean;
use crate::binary;

/// What the owner says before it ends to leave the lab running.
const KEEP: u8 = b'k';

/// The owner's end: the watcher acts when this is dropped or the owner ends.
#[derive(Debug)]
pub(crate) struct Watcher {
    child: Child,
}

impl Watcher {
    pub(crate) fn start(id: &str) -> Result<Self> {
        let child = Command::new(binary::lab()?)
            .args(["watch", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A Ctrl-C on the terminal is for the owner's group only.
            .process_group(0)
            .spawn()
            .context("start the lab's watcher")?;
        Ok(Self { child })
    }

    /// Ends the watcher without cleaning.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        let mut input = self.child.stdin.take().context("talk to the lab's watcher")?;
        input.write_all(&[KEEP]).context("talk to the lab's watcher")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Fails only when it was waited for already.
        let _status = self.child.wait();
    }
}

/// The watcher's life: wait for the end of the pipe, then clean.
///
/// # Errors
/// When something of the lab stays.
pub(crate) fn run(id: &str) -> Result<()> {
    let mut said = Vec::new();
    std::io::stdin().read_to_end(&mut said).context("wait for the owner of the lab")?;
    if said.contains(&KEEP) {
        return Ok(());
    }
    clean(id).with_context(|| format!("remove what lab {id} left"))
}
