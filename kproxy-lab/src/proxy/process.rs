//! A proxy's process: started, stopped, killed, started again.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;

/// How long a proxy may need to get ready or to end: far more than any does, so that only a
/// broken one meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look.
const TICK: Duration = Duration::from_millis(5);

/// How a proxy tells that it is ready.
#[derive(Debug)]
pub(super) enum Ready {
    /// By these words in its log.
    Logged(&'static str),
}

/// A proxy on a node. It ends with the lab.
#[derive(Debug)]
pub struct Proxy {
    node: String,
    dir: PathBuf,
    ready: Ready,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    run: Command,
    cleanup: Command,
    starts: usize,
    child: Option<Child>,
}

impl Proxy {
    pub(super) fn new(lab: &Lab, node: &str, run: Command, cleanup: Command, ready: Ready) -> Self {
        Self {
            node: node.to_owned(),
            dir: lab.dir().join(node),
            ready,
            state: Mutex::new(State { run, cleanup, starts: 0, child: None }),
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Starts it, again after it has ended, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends early or needs too long; the message holds the end of its log.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&self) -> Result<()> {
        let mut state = self.state();
        if state.child.is_some() {
            bail!("the proxy of {} runs already", self.node);
        }
        state.starts += 1;
        let log = self.log_file(state.starts);
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let also = file.try_clone().context("copy a descriptor")?;
        let child = state
            .run
            .stdin(Stdio::null())
            .stdout(also)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start the proxy of {}", self.node))?;
        state.child = Some(child);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends early or needs too long; the message holds the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        match self.ready {
            Ready::Logged(words) => self.wait_for_log(words),
        }
    }

    /// Waits until its log since the last start holds these words.
    ///
    /// # Errors
    /// When it ends before that or needs too long; the message holds the end of its log.
    pub fn wait_for_log(&self, words: &str) -> Result<()> {
        self.wait_until(&format!("`{words}` in its log"), || Ok(self.log().contains(words)))
    }

    /// Waits until `holds` says true, as long as the proxy runs.
    pub(super) fn wait_until(
        &self,
        what: &str,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            // Looked at before the condition: what it wrote last counts too.
            let ended = self.exit_status()?;
            let result = holds();
            if matches!(result, Ok(true)) {
                return Ok(());
            }
            let reason = match ended {
                Some(status) => format!("it ended with {status}"),
                None if start.elapsed() > PATIENCE => format!("not within {PATIENCE:?}"),
                None => {
                    sleep(TICK);
                    continue;
                }
            };
            let error = result.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
            let tail = self.log_tail();
            bail!("wait for {what} of the proxy of {}: {reason}{error}; log:\n{tail}", self.node);
        }
    }

    /// Asks it to end (SIGTERM) and waits for that; its exit status.
    ///
    /// # Errors
    /// When it does not run, or does not end; it is killed then.
    pub fn stop(&self) -> Result<ExitStatus> {
        let mut child = self.take()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id out of range")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("end the proxy of {}", self.node))?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait().context("wait for a proxy")? {
                return Ok(status);
            }
            sleep(TICK);
        }
        child.kill().and_then(|()| child.wait()).context("kill a proxy")?;
        bail!(
            "the proxy of {} did not end within {PATIENCE:?} of SIGTERM; log:\n{}",
            self.node,
            self.log_tail()
        )
    }

    /// Kills it (SIGKILL): it gets no chance to do anything.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.take()?;
        child.kill().and_then(|()| child.wait()).context("kill a proxy")?;
        Ok(())
    }

    /// Ends it if it runs, and removes all that it has programmed.
    ///
    /// # Errors
    /// When its own cleaning command fails.
    pub fn remove(&self) -> Result<()> {
        if self.is_running() {
            self.stop()?;
        }
        let output = self.state().cleanup.output().context("run a proxy's cleaning command")?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("clean up after the proxy of {}: {}", self.node, message.trim());
        }
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.exit_status(), Ok(None))
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        let starts = self.state().starts;
        // Not made yet: nothing logged.
        let bytes = fs::read(self.log_file(starts)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit status if it has ended; an error if it was never started or waited for already.
    fn exit_status(&self) -> Result<Option<ExitStatus>> {
        let mut state = self.state();
        let child = state.child.as_mut();
        let child = child.with_context(|| format!("no proxy runs on {}", self.node))?;
        child.try_wait().context("wait for a proxy")
    }

    fn take(&self) -> Result<Child> {
        let child = self.state().child.take();
        child.with_context(|| format!("no proxy runs on {}", self.node))
    }

    /// Kills it if it runs; for the end of the lab.
    pub(crate) fn end(&self) {
        let child = self.state().child.take();
        if let Some(mut child) = child {
            // Both fail only when it has ended already.
            let _ended = child.kill();
            let _status = child.wait();
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn log_file(&self, start: usize) -> PathBuf {
        self.dir.join(format!("proxy-{start}.log"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
