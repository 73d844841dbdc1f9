//! The agent: a process in a place's namespace and cgroup that serves and probes.
//!
//! cgroup programs go by the cgroup of the process that makes a socket, so every socket of a place
//! has to be made by a process in it. One long-living process a place makes that cost no fork.

mod client;
mod connection;
mod cpu;
mod flooding;
mod forging;
mod fragments;
mod holding;
mod http;
mod loading;
mod probing;
mod raw;
mod server;
mod stepping;

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::protocol::{Op, Reply, Request, Serve};
use crate::{cgroup, netns};
pub(crate) use holding::Holds;
pub(crate) use loading::run as load;
pub(crate) use probing::run as probe;
use server::Server;
use stepping::Stepping;

/// Enters the place and works on requests from standard input until it ends.
///
/// # Errors
/// When the place cannot be entered or a message cannot be read.
pub(crate) fn run(netns: &Path, cgroup: &Path) -> Result<()> {
    // Both before any thread or socket exists.
    cgroup::join_self(cgroup)?;
    netns::enter(netns)?;
    let agent = Arc::new(Agent::default());
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read a request")?;
        let request: Request = serde_json::from_str(&line).context("decode a request")?;
        let agent = Arc::clone(&agent);
        thread::spawn(move || {
            let result = agent.work(&request.op).map_err(|error| format!("{error:#}"));
            // The lab is gone: standard input ends too, and so does this process.
            let _lab_gone = reply(&Reply { id: request.id, result });
        });
    }
    while agent.detached.load(Ordering::Relaxed) {
        thread::park();
    }
    Ok(())
}

/// Serves until the process ends.
///
/// # Errors
/// When an address cannot be bound.
pub(crate) fn serve(spec: &Serve) -> Result<()> {
    Server::start(spec)?.join()
}

fn reply(reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_string(reply).context("encode a reply")?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("write a reply")
}

#[derive(Default)]
struct Agent {
    servers: Mutex<HashMap<u16, Server>>,
    holds: Holds,
    stepping: Stepping,
    detached: AtomicBool,
}

impl Agent {
    fn work(&self, op: &Op) -> Result<Value> {
        let value = match op {
            Op::Serve(spec) => {
                let server = Server::start(spec)?;
                self.servers().insert(spec.port, server);
                Value::Null
            }
            Op::StopServing { port } => {
                let server = self.servers().remove(port);
                server.with_context(|| format!("no server on port {port}"))?.stop()?;
                Value::Null
            }
            Op::Probe(probe) => serde_json::to_value(probing::run(probe))?,
            Op::Load(load) => serde_json::to_value(loading::run(load)?)?,
            Op::Hold(hold) => serde_json::to_value(self.holds.open(hold)?)?,
            Op::HoldReport { hold, stop } => {
                serde_json::to_value(self.holds.report(*hold, *stop)?)?
            }
            Op::Open { transport, from } => {
                serde_json::to_value(self.stepping.open(*transport, *from)?)?
            }
            Op::Step { socket, step } => serde_json::to_value(self.stepping.step(*socket, *step)?)?,
            Op::Close { socket } => serde_json::to_value(self.stepping.close(*socket)?)?,
            Op::Http { to, method, path, timeout } => {
                serde_json::to_value(http::ask(*to, method, path, *timeout))?
            }
            Op::Flood(flood) => serde_json::to_value(flooding::run(flood)?)?,
            Op::Forge(forge) => serde_json::to_value(forging::run(forge)?)?,
            Op::Detach => {
                self.detached.store(true, Ordering::Relaxed);
                Value::Null
            }
        };
        Ok(value)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<u16, Server>> {
        self.servers.lock()
    }
}
