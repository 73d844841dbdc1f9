//! A proxy on a node: started, stopped, killed, started again.

use std::process::{Command, ExitStatus};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use super::metrics;
use super::node::Node;
use crate::place::Place;
use crate::process::Process;

/// How a proxy tells that it has programmed all that it knows.
#[derive(Debug)]
pub(super) enum Ready {
    /// By these words in its log.
    Logged(&'static str),
    /// kube-proxy's metrics, as this place reads them.
    Metrics(Arc<Place>),
}

/// A proxy on a node. It ends with the lab.
#[derive(Debug)]
pub struct Proxy {
    node: String,
    process: Process,
    ready: Ready,
    cleanup: Mutex<Command>,
}

impl Proxy {
    pub(super) fn new(
        node: &Node<'_>,
        program: &'static str,
        run: Command,
        cleanup: Command,
        ready: Ready,
    ) -> Self {
        let what = format!("{program} on {}", node.name());
        Self {
            node: node.name().to_owned(),
            process: Process::new(what, &node.dir(), program, run),
            ready,
            cleanup: Mutex::new(cleanup),
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Starts it, again after it has ended, and waits until it is ready.
    ///
    /// # Errors
    /// When it runs, ends early or needs too long; the message holds the end of its log.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&self) -> Result<()> {
        self.process.launch()
    }

    /// Waits until it has programmed all that it knows. For kube-proxy this may be called again to
    /// wait for later changes that it has noticed.
    ///
    /// # Errors
    /// When it ends early or needs too long; the message holds the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        match &self.ready {
            Ready::Logged(words) => self.wait_for_log(words),
            Ready::Metrics(place) => self.process.wait_until("rules", || metrics::is_synced(place)),
        }
    }

    /// Waits until its log since the last start holds these words.
    ///
    /// # Errors
    /// When it ends before that or needs too long; the message holds the end of its log.
    pub fn wait_for_log(&self, words: &str) -> Result<()> {
        let what = format!("`{words}` in the log");
        self.process.wait_until(&what, || Ok(self.log().contains(words)))
    }

    /// Asks it to end (SIGTERM) and waits for that; its exit status.
    ///
    /// # Errors
    /// When it does not run, or does not end; it is killed then.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.process.stop()
    }

    /// Kills it (SIGKILL): it gets no chance to do anything.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Ends it if it runs, and removes all that it has programmed.
    ///
    /// # Errors
    /// When its own cleaning command fails.
    pub fn remove(&self) -> Result<()> {
        if self.is_running() {
            self.stop()?;
        }
        let mut cleanup = self.cleanup.lock();
        let output = cleanup.output().context("run a proxy's cleaning command")?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("clean up after the proxy of {}: {}", self.node, message.trim());
        }
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it if it runs; for the end of the lab.
    pub(crate) fn end(&self) {
        self.process.end();
    }
}
