//! What a socket was told: kept in socket storage, freed with the socket, never evicted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::FlowKey;
use crate::net::{Addr, Port};
use crate::pod::shared_layout;

/// Peers that one socket remembers: the one that it is connected to, and those that it sends to. An
/// unconnected UDP socket has one for each frontend that it talks to (a resolver: its name servers).
/// Beyond that the oldest is reused.
pub const PEERS: usize = 1 + SENT;
/// Those that it sends to come after the one that it is connected to.
pub const SENT: usize = 4;

/// Seconds for which what goes to one who has asked the socket is an answer: as long as conntrack keeps
/// a UDP stream.
pub const ASKER_SECONDS: u64 = 120;

/// One frontend that the socket dialled and the backend it was given. Or one who has asked the socket
/// from an address and port that are a frontend, too: both are that one, and `word` is the second
/// (CLOCK_MONOTONIC) of the last question.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Peer {
    /// Dialled frontend address.
    pub frontend: Addr,
    /// Backend address given.
    pub backend: Addr,
    /// Address that the socket, or its last datagram to the frontend, was bound to; unspecified for none.
    pub source: Addr,
    /// Dialled frontend port; 0: the entry is free.
    pub frontend_port: Port,
    /// Backend port given.
    pub backend_port: Port,
    /// Service index.
    pub service: u32,
    /// The service's whole [`crate::service::Service::word`] when the backend was last checked.
    pub word: u64,
}

impl Peer {
    /// Whether the entry is free.
    #[inline(always)]
    pub const fn is_free(&self) -> bool {
        self.frontend_port.0 == 0
    }

    /// Whether this is one who has asked the socket.
    #[inline(always)]
    pub fn is_asker(&self) -> bool {
        self.backend_port == self.frontend_port && self.backend == self.frontend
    }

    /// Whether this backend was given.
    #[inline(always)]
    pub fn has_backend(&self, addr: &Addr, port: Port) -> bool {
        !self.is_free() && self.backend_port == port && self.backend == *addr
    }
}

/// Socket storage.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SocketState {
    /// First what connect() has led to: it counts as long as the socket is connected to its backend, for
    /// no program is asked when that ends. Then what sendmsg() has led to.
    pub peers: [Peer; PEERS],
    /// Which of those that it sends to is reused next.
    pub next: u16,
    /// 1: the first peer is among the open connections of its backend ([`crate::load`]).
    pub counted: u16,
    /// By bit, the peers whose backend the socket has dialled otherwise since: what comes from there is
    /// not shown as coming from the frontend.
    pub hidden: u16,
    /// The peer that was looked for last.
    pub found: u16,
}

impl SocketState {
    /// What connect() has led to.
    #[inline(always)]
    pub const fn connected(&self) -> &Peer {
        &self.peers[0]
    }
}

/// A frontend that a bound socket has dialled.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Dialled {
    /// Its address.
    pub frontend: Addr,
    /// Its port.
    pub port: Port,
    /// Always 0.
    pub pad: u16,
    /// Always 0.
    pub rest: u32,
    /// The socket's cookie.
    pub socket: u64,
}

/// Key in [`crate::abi::map::BOUND`]: a socket of this network namespace (its cookie), bound to `port`, at this
/// backend.
#[inline(always)]
pub const fn bound_key(netns: u64, port: Port, backend: Addr, to: Port, proto: u8) -> FlowKey {
    let src = Addr([netns as u32, (netns >> 32) as u32, 0, 0]);
    FlowKey { src, dst: backend, src_port: port, dst_port: to, proto, pad: [0; 3] }
}

/// Key in [`crate::abi::map::APART`]: what goes to this frontend from a socket with this port.
#[inline(always)]
pub const fn apart_key(port: Port, frontend: Addr, to: Port, proto: u8) -> FlowKey {
    FlowKey { src: Addr([0; 4]), dst: frontend, src_port: port, dst_port: to, proto, pad: [0; 3] }
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
    Peer: 64 { frontend, backend, source, frontend_port, backend_port, service, word }
    SocketState: 328 { peers, next, counted, hidden, found }
    Dialled: 32 { frontend, port, pad, rest, socket }
    SocketQuery: 120 { ethernet, remote, local, remote_port, local_port, pad, peer }
}
