//! Flows that the daemon finds to be old or without their backend, for the programs to judge: only there nothing comes between
//! the look at a flow and its end.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FlowKey;
use crate::{net::Addr, pod::shared_layout};

/// Flows in one query, a power of two. The verifier of 5.10 walks the way of each.
pub const SWEPT: usize = 8;

/// Input and output of [`crate::abi::program::SWEEP`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SweepQuery {
    /// Always 0: an Ethernet header, which every packet that a tc program is run on begins with.
    pub ethernet: [u8; 16],
    /// How many of the keys there are.
    pub count: u32,
    /// Answer: keys whose connection, or lone entry, was removed.
    pub removed: u32,
    /// Not unspecified: a source address that this node has lost. Only flows that leave with it are ended,
    /// and those at once.
    pub source: Addr,
    /// Keys of entries, of either direction.
    pub keys: [FlowKey; SWEPT],
}

shared_layout! {
    SweepQuery: 360 { ethernet, count, removed, source, keys }
}
