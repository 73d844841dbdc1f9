//! The lab's end of an agent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::binary;
use crate::protocol::{Op, Reply, Request};

type Pending = Arc<Mutex<HashMap<u64, Sender<Result<Value, String>>>>>;

/// A running agent. Ended by [`Agent::end`] or with the lab's cgroup.
#[derive(Debug)]
pub(crate) struct Agent {
    place: String,
    log: PathBuf,
    child: Mutex<Child>,
    input: Mutex<ChildStdin>,
    pending: Pending,
    next: AtomicU64,
}

impl Agent {
    pub(crate) fn start(place: &str, netns: &Path, cgroup: &Path, log: &Path) -> Result<Self> {
        let log_file = File::create(log).with_context(|| format!("make {}", log.display()))?;
        let mut child = Command::new(binary::lab()?)
            .arg("agent")
            .args(["--netns".as_ref(), netns.as_os_str()])
            .args(["--cgroup".as_ref(), cgroup.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            // A Ctrl-C on the terminal is for the owner's group only.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start the agent of {place}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let input = input.with_context(|| format!("talk to the agent of {place}"))?;
        let output = output.with_context(|| format!("talk to the agent of {place}"))?;
        let pending = Pending::default();
        {
            let pending = Arc::clone(&pending);
            thread::spawn(move || hand_out(output, &pending));
        }
        Ok(Self {
            place: place.to_owned(),
            log: log.to_owned(),
            child: Mutex::new(child),
            input: Mutex::new(input),
            pending,
            next: AtomicU64::new(0),
        })
    }

    /// Does something in the place; waits for the result.
    pub(crate) fn call<T: DeserializeOwned>(&self, op: Op) -> Result<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        self.pending.lock().insert(id, sender);
        let mut line = serde_json::to_string(&Request { id, op }).context("encode a request")?;
        line.push('\n');
        self.input.lock().write_all(line.as_bytes()).with_context(|| self.ended())?;
        let reply = receiver.recv().with_context(|| self.ended())?;
        let value = reply.map_err(|message| anyhow!("{}: {message}", self.place))?;
        serde_json::from_value(value)
            .with_context(|| format!("decode a reply of the agent of {}", self.place))
    }

    /// Ends the process.
    pub(crate) fn end(&self) {
        let mut child = self.child.lock();
        // Both fail only when it has ended already.
        let _ended = child.kill();
        let _status = child.wait();
    }

    fn ended(&self) -> String {
        format!("the agent of {} has ended; see {}", self.place, self.log.display())
    }
}

/// Hands replies to those who wait for them, until the agent ends.
fn hand_out(output: ChildStdout, pending: &Mutex<HashMap<u64, Sender<Result<Value, String>>>>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let Ok(reply) = serde_json::from_str::<Reply>(&line) else { break };
        if let Some(waiting) = pending.lock().remove(&reply.id) {
            // The one who asked does not wait any more.
            let _nobody_waits = waiting.send(reply.result);
        }
    }
    // Dropping the senders wakes everyone who still waits.
    pending.lock().clear();
}
