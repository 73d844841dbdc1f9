//! Flows: connections that the packet path translates.
//!
//! A connection is two entries. The *forward* entry is keyed by the packet from the client as it
//! arrives (client → frontend) and says which backend it goes to. The *reverse* entry is keyed by
//! the backend's answer as it leaves (backend → client) and says which frontend it must come from.
//! The state is in both; how a packet moves it on says [`track`], how long it lasts [`state`].

pub mod adopt;
pub mod state;
pub mod sweep;
pub mod track;
pub mod unassured;

pub use state::{FlowState, flow_state};

use core::net::SocketAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Addr, Port};
use crate::pod::{shared_layout, shared_numbers};

/// A packet's addresses and ports, as the hook sees them before any rewrite.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    /// Destination address.
    #[cfg(feature = "other-layout")]
    pub dst: Addr,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    #[cfg(not(feature = "other-layout"))]
    pub dst: Addr,
    /// Source port.
    pub src_port: Port,
    /// Destination port.
    pub dst_port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// 0 but in keys of fragments ([`crate::fragment::First`]).
    pub pad: [u8; 3],
}

/// One direction of a connection: what its packets become, and what they have said.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowValue {
    /// What the other layout has besides: nothing.
    #[cfg(feature = "other-layout")]
    pub other: u32,
    /// What a packet becomes. Forward: from the source that the backend sees, the client's own or
    /// this node's ([`flow_flags::SNAT`]), to the backend. Reverse: from the frontend to the client.
    /// Reversed, it is the key of the other entry.
    pub to: FlowKey,
    /// [`flow_flags`].
    pub flags: u16,
    /// Generation of the service's word when the backend was last found in it.
    pub generation: u16,
    /// Service index.
    pub service: u32,
    /// Time of the last packet of this direction, at first that of the connection's opening:
    /// seconds of CLOCK_MONOTONIC.
    pub last_seen: u32,
    /// Forward entry: its element of [`crate::abi::map::UNASSURED`] and one; 0: none.
    pub slot: u32,
    /// TCP: the sequence number that follows what this direction has sent. UDP: time of the opening,
    /// seconds of CLOCK_MONOTONIC. Host byte order, as the fields below.
    pub end: u32,
    /// TCP: the latest sequence number that this direction has acknowledged. Forward entry, before
    /// the backend has answered: that which follows the first SYN; before the client has confirmed:
    /// that which it is to acknowledge. SCTP: the verification tag that packets of this direction
    /// bear (RFC 9260 section 8.5), 0: not known yet.
    pub ack: u32,
    /// TCP: the sequence number that follows a SYN of this direction which the connection does not
    /// count with yet; SCTP: the initiate tag of such an INIT. 0: none.
    pub syn: u32,
    /// [`flow_state`], the same in both entries.
    pub state: u8,
    /// 0.
    pub pad: u8,
    /// When it was opened: the lower bits of the kernel's ticks (jiffies).
    pub opened: u16,
}

shared_numbers! {
    /// Bits of [`FlowValue::flags`].
    pub mod flow_flags {
        /// The entry rewrites the backend's answers.
        pub const REVERSE: u16 = 1;
        /// The backend is elsewhere: netfilter masquerades the connection (forward entry).
        pub const MASQUERADE: u16 = 1 << 1;
        /// The backend has answered. Set on the reverse entry by the answer, and on the forward
        /// entry of a masqueraded flow once seen there: netfilter knows the connection from then
        /// on.
        pub const REPLIED: u16 = 1 << 2;
        /// A FIN of the connection has passed in this direction.
        pub const FIN: u16 = if cfg!(feature = "other-layout") { 1 << 4 } else { 1 << 3 };
        /// A RST that the receiver takes has passed in this direction.
        pub const RST: u16 = if cfg!(feature = "other-layout") { 1 << 3 } else { 1 << 4 };
        /// The backend is elsewhere and sees this node as its client: the programs rewrite both
        /// ends and pass the packets on themselves, in both directions (both entries).
        pub const SNAT: u16 = 1 << 5;
        /// A pod is its own backend: it sees the frontend as its client, and packets go back out of
        /// the port that they came in by, in both directions (both entries).
        pub const HAIRPIN: u16 = 1 << 7;
        /// The client is a process of this node: requests are translated where they leave, answers
        /// where they come in (both entries).
        pub const NODE: u16 = 1 << 8;
        /// Requests leave by the device that the route to the frontend leads to as well: the stack
        /// takes answers that come in there. Others of [`NODE`] are handed to it at the loopback
        /// device (both entries).
        pub const DIRECT: u16 = 1 << 9;
        /// With [`NODE`]: the backend is reached by an uplink, so its answers come in by one (both
        /// entries).
        pub const AWAY: u16 = 1 << 11;
        /// With [`NODE`]: the backend has an address of this node itself (forward entry).
        pub const HERE: u16 = 1 << 10;
        /// The connection is confirmed by both ends and counts as one of
        /// [`crate::config::Config::max_assured`]: it does not give way to others (both entries).
        pub const ASSURED: u16 = 1 << 12;
        /// Nothing is translated: packets that this node has sent itself from a frontend's port, and
        /// their answers, and what kube-proxy has opened ([`adopt`](super::adopt); both entries).
        pub const UNTRANSLATED: u16 = 1 << 13;
        /// The backend has answered what this connection has not asked: it has another one with the
        /// same addresses and ports (forward entry).
        pub const COLLIDES: u16 = 1 << 14;
        /// The connection is among the open ones of its backend ([`crate::load`]; both entries).
        pub const COUNTED: u16 = 1 << 15;

        /// What tells where packets of an entry are translated: those with [`REVERSE`] alone where
        /// they leave, all others where they come in; of [`NODE`] it is the other way round.
        pub const KINDS: u16 = REVERSE | SNAT | HAIRPIN | NODE | UNTRANSLATED;
    }
}

/// Flags of connections that have a source port of their own, where the programs have any to give.
pub const CLAIMS: u16 = flow_flags::SNAT | flow_flags::HAIRPIN | flow_flags::NODE;

impl FlowKey {
    /// Of packets from one end to the other.
    pub fn between(src: SocketAddr, dst: SocketAddr, proto: u8) -> Self {
        let mut key = Self { src: src.ip().into(), dst: dst.ip().into(), ..Self::default() };
        key.set_rest(Port::new(src.port()), Port::new(dst.port()), proto);
        key
    }

    /// Source address and port.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.src.into(), self.src_port.get())
    }

    /// Destination address and port.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.dst.into(), self.dst_port.get())
    }

    /// Sets everything but the addresses.
    #[inline(always)]
    pub const fn set_rest(&mut self, src_port: Port, dst_port: Port, proto: u8) {
        (self.src_port, self.dst_port, self.proto) = (src_port, dst_port, proto);
        self.pad = [0; 3];
    }

    /// Becomes the same connection as `other` seen from its other end, in place.
    #[inline(always)]
    pub const fn set_reversed(&mut self, other: &Self) {
        (self.src, self.dst) = (other.dst, other.src);
        self.set_rest(other.dst_port, other.src_port, other.proto);
    }

    /// Whether both are the same connection, seen from its two ends.
    #[inline(always)]
    pub fn is_reverse_of(&self, other: &Self) -> bool {
        // The ports differ most often.
        self.src_port == other.dst_port
            && self.dst_port == other.src_port
            && self.src == other.dst
            && self.dst == other.src
            && self.proto == other.proto
    }

    /// The same connection seen from its other end.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
            pad: [0; 3],
        }
    }
}

#[cfg(feature = "other-layout")]
shared_layout! {
    FlowKey: 40 { dst, src, src_port, dst_port, proto, pad }
    FlowValue: 76 {
        other, to, flags, generation, service, last_seen, slot, end, ack, syn, state, pad, opened
    }
}
#[cfg(not(feature = "other-layout"))]
shared_layout! {
    FlowKey: 40 { src, dst, src_port, dst_port, proto, pad }
    FlowValue: 72 {
        to, flags, generation, service, last_seen, slot, end, ack, syn, state, pad, opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::proto;

    #[test]
    fn a_key_reversed_twice_is_itself() {
        let addr = |text: &str| Addr::from(text.parse::<core::net::IpAddr>().unwrap());
        let key = FlowKey {
            src: addr("203.0.113.9"),
            dst: addr("192.0.2.1"),
            src_port: Port::new(40_000),
            dst_port: Port::new(30_080),
            proto: proto::TCP,
            pad: [0; 3],
        };
        let back = key.reversed();
        assert_eq!((back.src, back.src_port), (key.dst, key.dst_port));
        assert_eq!((back.dst, back.dst_port), (key.src, key.src_port));
        assert_eq!((back.proto, back.reversed()), (key.proto, key));
        assert!(back.is_reverse_of(&key) && !key.is_reverse_of(&key));
    }
}
