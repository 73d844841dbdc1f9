//! What a lab and its agents say to each other: JSON, one message a line.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hold::Hold;
use crate::load::Load;
use crate::probe::Probe;

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
    /// Answer: [`crate::probe::Outcome`].
    Probe(Probe),
    /// Answer: [`crate::load::LoadReport`].
    Load(Load),
    /// Open a long-lived connection. Answer: its number.
    Hold(Hold),
    /// Answer: [`crate::hold::HoldReport`] so far; the connection is closed if `stop`.
    HoldReport { hold: u64, stop: bool },
    /// Answer: [`crate::http::HttpOutcome`].
    Http { to: SocketAddr, method: String, path: String, timeout: Duration },
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

/// Sockets of a server. SCTP ones are made only where they are asked for: the first one on a machine
/// loads the kernel's module.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Sockets {
    TcpAndUdp,
    Sctp,
}

/// What a server answers to `who TOKEN PADDING`: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The server's name, such as `n1/a`.
    pub server: String,
    /// Address and port that the request came from, as the server saw it.
    pub client: SocketAddr,
    /// Address and port that the request arrived at.
    pub local: SocketAddr,
    /// The request's token: tells a late answer from the awaited one.
    pub(crate) token: u64,
    /// The request's padding.
    pub(crate) padding: String,
}

/// Request line of a probe.
pub(crate) fn who(token: u64, padding: usize) -> String {
    format!("who {token} {}\n", "x".repeat(padding))
}

/// The same for an answer that comes in fragments, the last one first.
pub(crate) fn who_reversed(token: u64, padding: usize) -> String {
    format!("{REVERSED}{}", who(token, padding))
}

/// What [`who_reversed`] begins with.
pub(crate) const REVERSED: &str = "reversed ";

/// Request of a load: answered by [`PONG`].
pub(crate) const PING: &[u8] = b"ping\n";
/// Like [`PING`]; then the server closes the connection.
pub(crate) const LAST: &[u8] = b"last\n";
/// Answer to [`PING`], [`LAST`] and a finished `put`.
pub(crate) const PONG: &[u8] = b"pong\n";
