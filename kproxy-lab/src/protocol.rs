//! What a lab and its agents say to each other: JSON, one message a line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::traffic::{Flood, Forge, Hold, Load, Probe, Step, Transport};

/// A request to an agent. Requests are worked on side by side.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) op: Op,
}

/// The answer to the request of the same id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) result: Result<Value, String>,
}

/// What an agent can do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Start a server. Answer: null.
    Serve(Serve),
    /// Close the sockets of a server. Answer: null.
    StopServing { port: u16 },
    /// Answer: [`crate::traffic::Outcome`].
    Probe(Probe),
    /// Answer: [`crate::traffic::LoadReport`].
    Load(Load),
    /// Open a long-lived connection. Answer: its number.
    Hold(Hold),
    /// Answer: [`crate::traffic::HoldReport`] so far; the connection is closed if `stop`.
    HoldReport { hold: u64, stop: bool },
    /// Make a socket and bind it. Answer: its number.
    Open { transport: Transport, from: SocketAddr },
    /// Answer: [`crate::traffic::Seen`].
    Step { socket: u64, step: Step },
    /// Close a socket. Answer: null.
    Close { socket: u64 },
    /// Answer: [`crate::traffic::HttpOutcome`].
    Http { to: SocketAddr, method: String, path: String, timeout: Duration },
    /// Answer: [`crate::traffic::FloodReport`].
    Flood(Flood),
    /// Answer: [`crate::traffic::Verdict`].
    Forge(Forge),
    /// Live on when the lab's process ends. Answer: null.
    Detach,
}

/// A server for probes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Serve {
    /// What it calls itself.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) sockets: Sockets,
    /// Addresses to bind; answers to datagrams come from the address they were sent to.
    pub(crate) addresses: Vec<IpAddr>,
    /// CPU to run on.
    pub(crate) cpu: Option<usize>,
}

/// Sockets of a server. Those of SCTP are made only where they are asked for: the first one on a machine
/// loads the kernel's module.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Sockets {
    TcpAndUdp,
    Mptcp,
    Sctp,
}
