//! What a socket was told: kept in socket storage, freed with the socket, never evicted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Addr, Port};
use crate::pod::shared_layout;

/// Peers that one socket remembers. A connected socket needs one; an unconnected UDP socket one
/// for each frontend it talks to (a resolver: its name servers). Beyond that the oldest is reused.
pub const PEERS: usize = 4;

/// One frontend that the socket dialled and the backend it was given.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Peer {
    /// Dialled frontend address.
    pub frontend: Addr,
    /// Backend address given.
    pub backend: Addr,
    /// Dialled frontend port; 0: the entry is free.
    pub frontend_port: Port,
    /// Backend port given.
    pub backend_port: Port,
    /// Service index.
    pub service: u32,
    /// The service's whole [`crate::service::Service::word`] when the backend was last checked.
    pub word: u64,
}

/// Socket storage.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SocketState {
    /// The remembered peers.
    pub peers: [Peer; PEERS],
    /// Peer to reuse next when all are taken.
    pub next: u32,
    /// 1: the first peer is among the open connections of its backend ([`crate::load`]).
    pub counted: u32,
}

/// Input and output of [`crate::abi::program::UDP_SOCKET`]: it looks the socket up and fills in
/// what the socket was told.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SocketQuery {
    /// Always 0: an Ethernet header, which every packet that a tc program is run on begins with.
    pub ethernet: [u8; 16],
    /// Address that the socket is connected to.
    pub remote: Addr,
    /// Its own address.
    pub local: Addr,
    /// Port that it is connected to.
    pub remote_port: Port,
    /// Its own port.
    pub local_port: Port,
    /// Always 0.
    pub pad: u32,
    /// Answer: the peer that it is connected to; its frontend port is 0 when no program gave it.
    pub peer: Peer,
}

shared_layout! {
    Peer: 48 { frontend, backend, frontend_port, backend_port, service, word }
    SocketState: 200 { peers, next, counted }
    SocketQuery: 104 { ethernet, remote, local, remote_port, local_port, pad, peer }
}
