//! Per-CPU counters.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::pod::shared_layout;

/// Counters of one service (backend set), one copy a CPU; readers add them up.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ServiceCounters {
    /// Connections given a backend: connect() calls, new UDP peers of a socket, new flows.
    pub connections: u64,
    /// Packets translated on the packet path, both directions.
    pub packets: u64,
    /// Bytes of those packets, headers included.
    pub bytes: u64,
    /// Connections of the packet path that the backend refused, or did not answer until their time was up.
    pub failed: u64,
    /// Round-robin positions of this CPU, no counters for people: sockets, then packets. With one
    /// position for both, a pod and a client that dial in step would each get every other backend.
    pub turns: [u32; 2],
}

/// Key of a drop counter.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct DropKey {
    /// Service index, or [`NO_SERVICE`].
    pub service: u32,
    /// [`crate::drop_reason::DropReason`] as a number.
    pub reason: u32,
}

/// Service index of drops that belong to no service.
pub const NO_SERVICE: u32 = u32::MAX;

shared_layout! {
    ServiceCounters: 40 { connections, packets, bytes, failed, turns }
    DropKey: 8 { service, reason }
}
