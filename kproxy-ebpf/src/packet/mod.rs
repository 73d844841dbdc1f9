//! A packet, checked once: after [`Packet::parse`] every header it names is in the linear part.
//!
//! Parsing is pure: it looks at the packet and at nothing else.

pub(crate) mod early;
mod extensions;
pub(crate) mod headers;
pub(crate) mod icmp_error;
mod part;
pub(crate) mod rewrite;

use aya_ebpf::programs::TcContext;
use kproxy_common::{
    flow::{FlowKey, track::Segment},
    net::{Addr, Port, proto},
};

use self::headers::{ipv4, ipv6, ports, sctp, tcp, udp};
use crate::skb::{self, ETH_P_IP, ETH_P_IPV6, at, ensure, segment_size};

/// TCP flags of SCTP's chunk types that mean the same: what opens, breaks off and ends an association.
static SCTP_FLAGS: [u8; 16] = {
    let mut flags = [tcp::ACK; 16];
    flags[sctp::INIT] = tcp::SYN;
    flags[sctp::INIT_ACK] = tcp::SYN | tcp::ACK;
    flags[sctp::ABORT] = tcp::RST;
    flags[sctp::SHUTDOWN] = tcp::FIN;
    flags[sctp::SHUTDOWN_ACK] = tcp::FIN;
    flags
};

/// What the programs need to know of a TCP, UDP or SCTP packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Offset of the TCP, UDP or SCTP header.
    l4: u16,
    /// Bytes of the IP packet as its header says.
    pub(crate) len: u32,
    /// Addresses, ports and protocol. A later fragment has no ports of its own.
    pub(crate) key: FlowKey,
    /// Identification of a fragmented packet, as it lies in the header.
    pub(crate) id: u32,
    /// What TCP or SCTP says; nothing for UDP and later fragments.
    pub(crate) segment: Segment,
    /// Time at which the packet was seen, as [`crate::kernel::now`] says.
    pub(crate) now: u32,
    /// Time to live or hop limit.
    pub(crate) ttl: u8,
    /// IPv6, not IPv4.
    pub(crate) v6: bool,
    /// Whole packet or fragment: see [`part`].
    part: u8,
    /// Seen where it leaves by a device, not where it comes in.
    pub(crate) egress: bool,
    /// The flow filter has flows to the destination. `false`: it has not been asked.
    pub(crate) has_flows: bool,
}

impl Packet {
    /// Offset of the TCP, UDP or SCTP header from the start of the packet. The mask tells the verifier
    /// what it does not know of a value in a map.
    #[inline(always)]
    pub(crate) const fn l4(&self) -> usize {
        (self.l4 & 0x3fff) as usize
    }

    /// Reads the headers, in place: a packet lies in a map, where the verifier looks no further. On the
    /// stack, it would walk all that follows once for each kind of packet. `None` for everything that is not TCP, UDP or SCTP over IPv4 or IPv6; a later fragment is
    /// of any protocol. `L3` is the offset of the IP header.
    #[inline(always)]
    pub(crate) fn parse<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        if skb::is_tagged(ctx) {
            return None;
        }
        match skb::protocol(ctx) {
            ETH_P_IP => self.parse_v4::<L3>(ctx),
            ETH_P_IPV6 => self.parse_v6::<L3>(ctx),
            _ => None,
        }
    }

    /// Sets where the headers are; the rest is the caller's.
    #[inline(always)]
    fn place(&mut self, l4: usize, v6: bool) {
        (self.l4, self.v6) = (l4 as u16, v6);
        self.segment = Segment { seq: 0, ack: 0, end: 0, flags: 0 };
        (self.part, self.id) = (part::WHOLE, 0);
    }

    #[inline(always)]
    fn parse_v4<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + ipv4::LEN)?;
        let ihl = usize::from(*at::<u8>(ctx, L3 + ipv4::VERSION_IHL)? & 0x0f) * 4;
        if ihl < ipv4::LEN {
            return None;
        }
        self.key.src = Addr::from_v4_word(*at::<u32>(ctx, L3 + ipv4::SRC)?);
        self.key.dst = Addr::from_v4_word(*at::<u32>(ctx, L3 + ipv4::DST)?);
        self.ttl = *at::<u8>(ctx, L3 + ipv4::TTL)?;
        self.len = u32::from(u16::from_be(*at::<u16>(ctx, L3 + ipv4::TOTAL_LENGTH)?));
        self.place(L3 + ihl, false);
        let [id, fragment] = *at::<[u16; 2]>(ctx, L3 + ipv4::IDENTIFICATION)?;
        self.part = part::of(
            u32::from(fragment & ipv4::MORE_FRAGMENTS),
            u32::from(fragment & ipv4::FRAGMENT_OFFSET),
        );
        self.id = u32::from(id);
        let proto = *at::<u8>(ctx, L3 + ipv4::PROTOCOL)?;
        self.parse_l4::<L3>(ctx, proto)
    }

    #[inline(always)]
    fn parse_v6<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + ipv6::LEN)?;
        self.key.src = Addr(*at::<[u32; 4]>(ctx, L3 + ipv6::SRC)?);
        self.key.dst = Addr(*at::<[u32; 4]>(ctx, L3 + ipv6::DST)?);
        self.ttl = *at::<u8>(ctx, L3 + ipv6::HOP_LIMIT)?;
        let payload = u16::from_be(*at::<u16>(ctx, L3 + ipv6::PAYLOAD_LENGTH)?);
        self.len = u32::from(payload) + ipv6::LEN as u32;
        self.place(L3 + ipv6::LEN, true);
        let next = *at::<u8>(ctx, L3 + ipv6::NEXT_HEADER)?;
        if matches!(next, proto::TCP | proto::UDP) {
            return self.parse_l4::<L3>(ctx, next);
        }
        let found = extensions::walk(ctx, L3, next)?;
        self.l4 = found.l4() as u16;
        (self.part, self.id) = (found.part(), found.id());
        self.parse_l4::<L3>(ctx, found.proto())
    }

    #[inline(always)]
    fn parse_l4<const L3: usize>(&mut self, ctx: &TcContext, proto: u8) -> Option<()> {
        if self.is_later() {
            self.key.proto = proto;
            return Some(());
        }
        match proto {
            proto::TCP => {
                ensure(ctx, self.l4() + tcp::LEN)?;
                self.parse_tcp::<L3>(ctx)?;
            }
            proto::UDP => ensure(ctx, self.l4() + udp::LEN)?,
            proto::SCTP => {
                ensure(ctx, self.l4() + sctp::LEN)?;
                self.segment.seq = u32::from_be(*at::<u32>(ctx, self.l4() + sctp::TAG)?);
                // Several packets of data in one: the list of their chunks begins here, and bytes
                // that are pulled out of the first ones are lost to it.
                if segment_size(ctx) == 0 {
                    ensure(ctx, self.l4() + sctp::LEN + 4)?;
                    // All four: the verifier learns nothing from the check of a single byte.
                    let [chunk, ..] = *at::<[u8; 4]>(ctx, self.l4() + sctp::CHUNK_TYPE)?;
                    // Larger types mean nothing to a flow; those that end alike end it late at worst.
                    self.segment.flags = SCTP_FLAGS[usize::from(chunk & 15)];
                    if self.segment.flags & tcp::SYN != 0 {
                        ensure(ctx, self.l4() + sctp::CHUNK_TYPE + sctp::INIT_WITH_TAG)?;
                        let tag = *at::<u32>(ctx, self.l4() + sctp::INITIATE_TAG)?;
                        self.segment.ack = u32::from_be(tag);
                    }
                }
            }
            _ => return None,
        }
        let src_port = Port(*at::<u16>(ctx, self.l4() + ports::SRC)?);
        let dst_port = Port(*at::<u16>(ctx, self.l4() + ports::DST)?);
        self.key.set_rest(src_port, dst_port, proto);
        Some(())
    }

    /// Numbers and flags of TCP.
    #[inline(always)]
    fn parse_tcp<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        let [seq, ack, rest] = *at::<[u32; 3]>(ctx, self.l4() + tcp::SEQUENCE)?;
        let [offset, flags, ..] = rest.to_ne_bytes();
        let headers = (self.l4() - L3) as u32 + u32::from(offset >> 4) * 4;
        // A FIN, the lowest bit, and a SYN, the next one, take a number each.
        let marks = u32::from(flags & tcp::FIN) + u32::from((flags & tcp::SYN) >> 1);
        let seq = u32::from_be(seq);
        let sent = self.len.wrapping_sub(headers).wrapping_add(marks);
        let end = seq.wrapping_add(sent);
        self.segment = Segment { seq, ack: u32::from_be(ack), end, flags };
        Some(())
    }

    /// Bytes of the largest IP packet that leaves for this one: of a segment, where the hardware or the
    /// kernel cuts it up. 0: not known.
    #[inline(always)]
    pub(crate) fn largest_len<const L3: usize>(&self, ctx: &TcContext) -> Option<u32> {
        let segment = segment_size(ctx);
        if segment == 0 {
            return Some(ctx.len() - L3 as u32);
        }
        if self.is_sctp() {
            // Cut between its chunks (GSO_BY_FRAGS): the kernel does not say how large they are.
            return Some(0);
        }
        let header = if self.is_udp() {
            udp::LEN as u32
        } else {
            u32::from(*at::<u8>(ctx, self.l4() + tcp::DATA_OFFSET)? >> 4) * 4
        };
        Some((self.l4() - L3) as u32 + header + segment)
    }

    /// Offset of the TCP or UDP checksum.
    #[inline(always)]
    pub(crate) fn l4_checksum(&self) -> usize {
        self.l4() + if self.is_udp() { udp::CHECKSUM } else { tcp::CHECKSUM }
    }

    /// Whether this packet may open a connection: a SYN or INIT, or any UDP datagram, of which the
    /// first fragment counts.
    #[inline(always)]
    pub(crate) fn opens(&self) -> bool {
        self.is_udp() && !self.is_later() || self.is_syn()
    }

    /// A fragment without the header.
    #[inline(always)]
    pub(crate) fn is_later(&self) -> bool {
        self.part == part::LATER
    }

    /// The fragment with the header.
    #[inline(always)]
    pub(crate) fn is_first(&self) -> bool {
        self.part == part::FIRST
    }

    /// SYN without ACK.
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        self.segment.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    #[inline(always)]
    pub(crate) fn is_udp(&self) -> bool {
        self.key.proto == proto::UDP
    }

    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        self.key.proto == proto::TCP
    }

    #[inline(always)]
    pub(crate) fn is_sctp(&self) -> bool {
        self.key.proto == proto::SCTP
    }
}
