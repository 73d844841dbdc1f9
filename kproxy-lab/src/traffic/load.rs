//! Loads for measurements.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What one operation is.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, ValueEnum,
)]
pub enum Work {
    /// TCP: connect, one request and answer, close.
    Connect,
    /// TCP: one request and answer on an open connection.
    PingTcp,
    /// Connected UDP: one request and answer.
    PingUdp,
    /// Unconnected UDP: one request and answer.
    PingUdpUnconnected,
    /// TCP: 4 MiB ([`BULK_BYTES`]) from the server to the client.
    BulkDown,
    /// TCP: 4 MiB ([`BULK_BYTES`]) from the client to the server, and its word that they arrived.
    BulkUp,
}

/// Bytes of one bulk operation.
pub const BULK_BYTES: u64 = 4 << 20;

/// A load: operations one after the other until the time is over or the number is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub(crate) work: Work,
    pub(crate) to: SocketAddr,
    pub(crate) duration: Duration,
    pub(crate) operations: u64,
    pub(crate) cpu: Option<usize>,
}

impl Load {
    /// A load of one second.
    pub fn new(work: Work, to: impl Into<SocketAddr>) -> Self {
        let (duration, operations) = (Duration::from_secs(1), u64::MAX);
        Self { work, to: to.into(), duration, operations, cpu: None }
    }

    /// Stop after this time.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Stop after so many operations.
    #[must_use]
    pub fn operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    /// Run on this CPU only.
    #[must_use]
    pub fn cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Operations done; the first failed one ends the load with an error.
    pub operations: u64,
    /// Time that they took, in nanoseconds.
    pub nanoseconds: u64,
}

impl LoadReport {
    /// Nanoseconds of one operation.
    pub fn per_operation(&self) -> f64 {
        self.nanoseconds as f64 / self.operations.max(1) as f64
    }
}
