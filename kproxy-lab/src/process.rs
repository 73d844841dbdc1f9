//! A program that a lab runs beside its agents: started, watched through its log, ended.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::{Mutex, MutexGuard};

use crate::wait::poll_until;

/// How long a program may need to get ready or to end: far more than any does, so that only a
/// broken one meets it. On an old kernel that is emulated, on a busy machine, kproxy takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often to look.
const TICK: Duration = Duration::from_millis(5);

/// A program that can be started again after it has ended. It ends with the lab.
#[derive(Debug)]
pub struct Process {
    /// What it is, for messages: `kproxy on n1`.
    what: String,
    /// Logs are called `NAME-1.log`, `NAME-2.log`, …, one a start.
    dir: PathBuf,
    name: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    command: Command,
    starts: usize,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(what: String, dir: &Path, name: &'static str, command: Command) -> Self {
        let state = Mutex::new(State { command, starts: 0, child: None });
        Self { what, dir: dir.to_owned(), name, state }
    }

    /// Starts it; does not wait for anything.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.what);
        }
        let mut state = self.state();
        state.starts += 1;
        let log = self.log_file(state.starts);
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let also = file.try_clone().context("copy a descriptor")?;
        let child = state
            .command
            .stdin(Stdio::null())
            .stdout(also)
            .stderr(file)
            // A Ctrl-C on the terminal is for the owner's group only.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.what))?;
        state.child = Some(child);
        Ok(())
    }

    /// Waits until `holds` says true, as long as the program runs.
    ///
    /// # Errors
    /// When it ends before that or needs too long; the message holds the end of its log.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let look = || {
            // Looked at before the condition: what it wrote last counts too.
            let ended = self.exit_status()?;
            Ok((ended, holds()))
        };
        let is_over = |(ended, held): &(Option<ExitStatus>, Result<bool>)| {
            ended.is_some() || matches!(held, Ok(true))
        };
        let (ended, held) = poll_until(PATIENCE, TICK, look, is_over)?;
        let error = match held {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(error) => format!(" ({error:#})"),
        };
        let reason = match ended {
            Some(status) => format!("it ended with {status}"),
            None => format!("not within {PATIENCE:?}"),
        };
        bail!("wait for {what} of {}: {reason}{error}; log:\n{}", self.what, self.log_tail());
    }

    /// Asks it to end (SIGTERM) and waits for that; its exit status.
    ///
    /// # Errors
    /// When it does not run, or does not end; it is killed then.
    pub fn stop(&self) -> Result<ExitStatus> {
        let mut child = self.take()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id out of range")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("end {}", self.what))?;
        let look = || child.try_wait().with_context(|| format!("wait for {}", self.what));
        if let Some(status) = poll_until(PATIENCE, TICK, look, Option::is_some)? {
            return Ok(status);
        }
        self.reap(child)?;
        let tail = self.log_tail();
        bail!("{} did not end within {PATIENCE:?} of SIGTERM; log:\n{tail}", self.what)
    }

    /// Kills it (SIGKILL): it gets no chance to do anything.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn kill(&self) -> Result<()> {
        self.reap(self.take()?)
    }

    /// Kills it if it runs; for the end of the lab.
    pub(crate) fn end(&self) {
        // Fails when it never ran, or has ended already.
        let _ended = self.kill();
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.exit_status(), Ok(None))
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        if self.is_running() { self.state().child.as_ref().map(Child::id) } else { None }
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        let starts = self.state().starts;
        // Not made yet: nothing logged.
        let bytes = fs::read(self.log_file(starts)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The exit status if it has ended; an error if it does not run or was waited for already.
    fn exit_status(&self) -> Result<Option<ExitStatus>> {
        let mut state = self.state();
        let child = state.child.as_mut().with_context(|| format!("{} does not run", self.what))?;
        child.try_wait().with_context(|| format!("wait for {}", self.what))
    }

    fn take(&self) -> Result<Child> {
        let child = self.state().child.take();
        child.with_context(|| format!("{} does not run", self.what))
    }

    fn reap(&self, mut child: Child) -> Result<()> {
        child
            .kill()
            .and_then(|()| child.wait())
            .map(drop)
            .with_context(|| format!("kill {}", self.what))
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn log_file(&self, start: usize) -> PathBuf {
        self.dir.join(format!("{}-{start}.log", self.name))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
