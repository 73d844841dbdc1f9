//! What happens to an API server and its store: it hangs, it comes back with what it knew earlier.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ControlPlane, STORE};

/// The copy.
const EARLIER: &str = "earlier";

impl ControlPlane {
    /// Copies the store as it is now. etcd is away for a moment.
    ///
    /// # Errors
    /// When etcd does not run, or its files cannot be copied.
    pub fn save_store(&self) -> Result<()> {
        self.etcd.kill()?;
        copy(&self.data.join(STORE), &self.data.join(EARLIER))?;
        self.etcd.launch()?;
        self.wait_ready()
    }

    /// Kills API server and etcd and starts both with the store as [`Self::save_store`] has copied it: what came
    /// later has never been, and resource versions go on from there.
    ///
    /// # Errors
    /// When nothing was saved, or the API server does not get ready.
    pub fn restore_store(&self) -> Result<()> {
        self.api_server.kill()?;
        self.etcd.kill()?;
        let current = self.data.join(STORE);
        fs::remove_dir_all(&current).with_context(|| format!("remove {}", current.display()))?;
        copy(&self.data.join(EARLIER), &current)?;
        self.etcd.launch()?;
        self.start_api_server()
    }

    /// Stops the API server where it is (SIGSTOP): its connections stand, and it says nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hang_api_server(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn continue_api_server(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.wait_ready()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.api_server.pid().context("the API server does not run")?;
        let pid = Pid::from_raw(i32::try_from(pid).context("a process id out of range")?);
        kill(pid, signal).with_context(|| format!("send {signal} to the API server"))
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(what)?;
    for entry in fs::read_dir(from).with_context(what)? {
        let entry = entry.with_context(what)?;
        let target = to.join(entry.file_name());
        if entry.file_type().with_context(what)?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map(drop).with_context(what)?;
        }
    }
    Ok(())
}
