//! Long-lived connections that notice any loss.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::probe::Transport;

/// A connection to open and keep busy: a request, its answer, a pause, and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub(crate) to: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) pause: Duration,
    pub(crate) timeout: Duration,
    pub(crate) unanswered: bool,
    pub(crate) port: Option<u16>,
}

impl Hold {
    /// A connection (or UDP socket) to `to` with a request every 10 milliseconds.
    pub fn new(transport: Transport, to: impl Into<SocketAddr>) -> Self {
        Self {
            to: to.into(),
            transport,
            pause: Duration::from_millis(10),
            timeout: Duration::from_secs(3),
            unanswered: false,
            port: None,
        }
    }

    /// A TCP connection.
    pub fn tcp(to: impl Into<SocketAddr>) -> Self {
        Self::new(Transport::Tcp, to)
    }

    /// A connected UDP socket.
    pub fn udp(to: impl Into<SocketAddr>) -> Self {
        Self::new(Transport::UdpConnected, to)
    }

    /// Pause between an answer and the next request.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Bind the socket to a port first, instead of one that the kernel draws at random.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A UDP socket goes on although its first request gets no answer.
    #[must_use]
    pub fn even_unanswered(mut self) -> Self {
        self.unanswered = true;
        self
    }

    /// How long to wait for an answer before it counts as lost (default 3 seconds).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// What a long-lived connection has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests without an answer in time; one that is under way is not counted.
    pub lost: u64,
    /// Answers of each server.
    pub servers: BTreeMap<String, u64>,
    /// Errors of a UDP socket that went on, with their numbers.
    pub errors: BTreeMap<String, u64>,
    /// Why the TCP connection ended early.
    pub broken: Option<String>,
}

impl HoldReport {
    /// Whether nothing at all was lost.
    pub fn is_flawless(&self) -> bool {
        self.answered > 0 && self.lost == 0 && self.errors.is_empty() && self.broken.is_none()
    }
}
