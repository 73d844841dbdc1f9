//! Flows: connections that the packet path translates.
//!
//! A connection is two entries. The *forward* entry is keyed by the packet from the client as it
//! arrives (client → frontend) and says which backend it goes to. The *reverse* entry is keyed by
//! the backend's answer as it leaves (backend → client) and says which frontend it must come from.
//! Each entry only records its own direction; the sweeper looks at both.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Addr, Port};
use crate::pod::{shared_layout, shared_numbers};

/// A packet's addresses and ports, as the hook sees them before any rewrite.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
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

/// One direction of a connection: what its packets become.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowValue {
    /// What a packet becomes. Forward: from the source that the backend sees, the client's own or
    /// this node's ([`flow_flags::SNAT`]), to the backend. Reverse: from the frontend to the client.
    /// Reversed, it is the key of the other entry.
    pub to: FlowKey,
    /// [`flow_flags`].
    pub flags: u16,
    /// Generation of the service's word when the backend was chosen.
    pub generation: u16,
    /// Service index.
    pub service: u32,
    /// Time of the last packet of this direction, at first that of the connection's opening:
    /// seconds of CLOCK_MONOTONIC.
    pub last_seen: u32,
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
        /// A FIN has passed in this direction.
        pub const FIN: u16 = 1 << 3;
        /// A RST has passed in this direction.
        pub const RST: u16 = 1 << 4;
        /// The backend is elsewhere and sees this node as its client: the programs rewrite both
        /// ends and pass the packets on themselves, in both directions (both entries).
        pub const SNAT: u16 = 1 << 5;
        /// The connection is over: a RST has passed, or a FIN in each direction (both entries).
        pub const OVER: u16 = 1 << 6;
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
        /// The connection is among the open ones of its backend ([`crate::load`]; both entries).
        pub const COUNTED: u16 = 1 << 15;

        /// What tells where packets of an entry are translated: those with [`REVERSE`] alone where
        /// they leave, all others where they come in; of [`NODE`] it is the other way round.
        pub const KINDS: u16 = REVERSE | SNAT | HAIRPIN | NODE;
    }
}

/// Idle times after which the sweeper removes a flow. Sources: the defaults of nf_conntrack
/// (net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_proto_udp.c) and, for established TCP,
/// kube-proxy's 24 hours (kube-proxy.md 4.4).
pub mod timeout {
    /// TCP without an answer yet.
    pub const TCP_OPENING: u32 = 120;
    /// TCP in use.
    pub const TCP_ESTABLISHED: u32 = 86_400;
    /// TCP after a FIN from one side.
    pub const TCP_HALF_CLOSED: u32 = 3_600;
    /// TCP after a FIN from both sides (TIME_WAIT).
    pub const TCP_CLOSED: u32 = 120;
    /// TCP after a RST.
    pub const TCP_RESET: u32 = 10;
    /// UDP without an answer.
    pub const UDP_UNREPLIED: u32 = 30;
    /// UDP with answers.
    pub const UDP_REPLIED: u32 = 120;
}

/// State of a connection, derived from its two entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowState {
    /// No answer seen yet.
    Opening,
    /// Answers seen.
    Established,
    /// One side has sent a FIN.
    HalfClosed,
    /// Both sides have sent a FIN.
    Closed,
    /// One side has sent a RST.
    Reset,
}

impl FlowState {
    /// From the flags of both directions.
    #[inline(always)]
    pub fn of(forward: &FlowValue, reverse: &FlowValue) -> Self {
        let either = forward.flags | reverse.flags;
        if either & flow_flags::RST != 0 {
            Self::Reset
        } else if forward.flags & reverse.flags & flow_flags::FIN != 0 {
            Self::Closed
        } else if either & flow_flags::FIN != 0 {
            Self::HalfClosed
        } else if reverse.flags & flow_flags::REPLIED != 0 {
            Self::Established
        } else {
            Self::Opening
        }
    }

    /// Seconds without a packet after which a connection in this state is forgotten.
    pub const fn timeout(self, proto: u8) -> u32 {
        if proto == crate::net::proto::UDP {
            return match self {
                Self::Opening => timeout::UDP_UNREPLIED,
                Self::Established | Self::HalfClosed | Self::Closed | Self::Reset => {
                    timeout::UDP_REPLIED
                }
            };
        }
        match self {
            Self::Opening => timeout::TCP_OPENING,
            Self::Established => timeout::TCP_ESTABLISHED,
            Self::HalfClosed => timeout::TCP_HALF_CLOSED,
            Self::Closed => timeout::TCP_CLOSED,
            Self::Reset => timeout::TCP_RESET,
        }
    }

    /// The word shown by `kproxy dump flows`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }
}

impl FlowKey {
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

shared_layout! {
    FlowKey: 40 { src, dst, src_port, dst_port, proto, pad }
    FlowValue: 52 { to, flags, generation, service, last_seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::proto;

    #[test]
    fn state_follows_the_flags_of_both_directions() {
        let value = |flags| FlowValue { flags, ..FlowValue::default() };
        let (fin, replied) = (flow_flags::FIN, flow_flags::REPLIED);
        for (forward, reverse, want) in [
            (value(0), value(0), FlowState::Opening),
            (value(0), value(replied), FlowState::Established),
            (value(fin), value(replied), FlowState::HalfClosed),
            (value(0), value(fin | replied), FlowState::HalfClosed),
            (value(fin), value(fin | replied), FlowState::Closed),
            (value(0), value(flow_flags::RST), FlowState::Reset),
            (value(fin | flow_flags::RST), value(fin | replied), FlowState::Reset),
        ] {
            assert_eq!(FlowState::of(&forward, &reverse), want);
        }
    }

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
    }

    #[test]
    fn finished_connections_are_forgotten_sooner() {
        let tcp = |state: FlowState| state.timeout(proto::TCP);
        assert!(tcp(FlowState::Reset) < tcp(FlowState::Closed));
        assert!(tcp(FlowState::Closed) < tcp(FlowState::Established));
        assert_eq!(FlowState::Opening.timeout(proto::UDP), timeout::UDP_UNREPLIED);
    }
}
