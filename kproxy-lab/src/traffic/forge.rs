//! Forged packets: from somebody who knows both ends of a connection but takes no part in it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A forged packet from the client's end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forgery {
    /// RST with a sequence number far outside of the server's window.
    RstOutside,
    /// RST with the very number that the server expects: it ends the connection.
    RstExact,
    /// RST inside of the window but not at its edge: the server asks back (RFC 5961 section 3).
    RstInside,
    /// FIN with a sequence number far outside of the window.
    Fin,
    /// SYN with another initial sequence number (RFC 5961 section 4).
    Syn,
    /// ACK with wrong numbers.
    Ack,
}

impl Forgery {
    /// Those that end nothing.
    pub const HARMLESS: [Self; 5] =
        [Self::RstOutside, Self::RstInside, Self::Fin, Self::Syn, Self::Ack];
}

/// A TCP connection to open, a packet to forge while it is idle, and a time to wait before the
/// connection is asked whether it is still alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forge {
    pub(crate) to: SocketAddr,
    pub(crate) forgery: Forgery,
    pub(crate) wait: Duration,
    pub(crate) timeout: Duration,
}

impl Forge {
    /// A packet forged on a connection to `to`, and 15 seconds of waiting.
    pub fn new(forgery: Forgery, to: impl Into<SocketAddr>) -> Self {
        let (wait, timeout) = (Duration::from_secs(15), Duration::from_secs(5));
        Self { to: to.into(), forgery, wait, timeout }
    }

    /// How long to wait after the packet.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}
