//! Floods: packets from sources that do not exist.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Ranges that the sources of a flood are drawn from: those for benchmarks (RFC 2544, RFC 5180). A lab
/// has no route to them of its own, so answers follow the default routes to the router, which has to
/// throw them away.
pub const SPOOFED: [&str; 2] = ["198.18.0.0/15", "2001:2::/48"];

/// What a flood is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packets {
    /// TCP SYNs that nothing ever follows.
    Syn,
    /// UDP datagrams that servers of a lab do not answer.
    Datagram,
}

/// Packets to one address, each from another source unless one is given, until the time is over or
/// the number is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flood {
    pub(crate) packets: Packets,
    pub(crate) to: SocketAddr,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) rate: u64,
    pub(crate) count: u64,
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    pub(crate) cpu: Option<usize>,
}

impl Flood {
    /// `rate` packets a second, or what the machine can send, for one second.
    pub fn new(packets: Packets, to: impl Into<SocketAddr>, rate: u64) -> Self {
        let (count, duration) = (u64::MAX, Duration::from_secs(1));
        let (to, source) = (to.into(), None);
        Self { packets, to, source, rate, count, duration, seed: 0, cpu: None }
    }

    /// All from this address and port, whoever has it; it must be of the other's family.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Stop after so many packets.
    #[must_use]
    pub fn count(mut self, packets: u64) -> Self {
        self.count = packets;
        self
    }

    /// Stop after this time.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Another seed draws other sources; the same one draws the same.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Run on this CPU only.
    #[must_use]
    pub fn cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }
}

/// What a flood did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodReport {
    /// Packets sent.
    pub sent: u64,
    /// Time that it took, in nanoseconds.
    pub nanoseconds: u64,
}

impl FloodReport {
    /// Packets a second.
    pub fn rate(&self) -> f64 {
        self.sent as f64 * 1e9 / self.nanoseconds.max(1) as f64
    }
}
