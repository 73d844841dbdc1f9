//! Connections that kube-proxy has opened, as netfilter's connection tracking names them: kproxy leaves them to
//! netfilter until they end, and gives none of their source ports to a connection of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FlowKey;
use crate::pod::shared_layout;

/// Connections in one query, a power of two.
pub const ADOPTED: usize = 8;

/// One of them.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Adopted {
    /// Packets of the client, as they arrive.
    pub key: FlowKey,
    /// Answers of the backend, as they arrive: to the client, or to what netfilter has put in its place.
    pub answer: FlowKey,
    /// Seconds without a packet until netfilter forgets it.
    pub left: u32,
    /// [`super::flow_state`].
    pub state: u8,
    /// 0.
    pub pad: [u8; 3],
}

/// Input and output of [`crate::abi::program::ADOPT`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AdoptQuery {
    /// Always 0: an Ethernet header, which every packet that a tc program is run on begins with.
    pub ethernet: [u8; 16],
    /// How many of the connections there are.
    pub count: u32,
    /// Answer: those that are left to netfilter.
    pub adopted: u32,
    /// The connections.
    pub connections: [Adopted; ADOPTED],
}

shared_layout! {
    Adopted: 88 { key, answer, left, state, pad }
    AdoptQuery: 728 { ethernet, count, adopted, connections }
}
