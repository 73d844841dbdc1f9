//! A packet, checked once: after [`Packet::parse`] every header it names is in the linear part.

use aya_ebpf::{helpers::bpf_skb_pull_data, programs::TcContext};
use kproxy_common::{
    flow::FlowKey,
    net::{Addr, Port, proto},
};

use crate::{
    extensions, fragments,
    rewrite::{TCP_CHECKSUM, UDP_CHECKSUM},
};

pub(crate) const ETH_P_IP: u16 = 0x0800u16.to_be();
pub(crate) const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
/// IPv4 "more fragments" and fragment offset (RFC 791 section 3.1).
pub(crate) const FRAGMENT: u16 = 0x3fffu16.to_be();
const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
const FRAGMENT_OFFSET: u16 = 0x1fffu16.to_be();

pub(crate) const IPV4_LEN: usize = 20;
pub(crate) const IPV6_LEN: usize = 40;
/// TCP up to its flags, which is all that is read; a whole UDP header is shorter.
pub(crate) const TCP_LEN: usize = 20;
pub(crate) const UDP_LEN: usize = 8;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// SCTP's common header, and the type of the first chunk behind it (RFC 9260 section 3).
pub(crate) const SCTP_LEN: usize = 12;
pub(crate) const SCTP_CHECKSUM: usize = 8;
const SCTP_INIT: usize = 1;
const SCTP_ABORT: usize = 6;
const SCTP_SHUTDOWN: usize = 7;
const SCTP_SHUTDOWN_ACK: usize = 8;

/// Which part of a packet this is: a number that is computed and not chosen, or the verifier would
/// walk everything that follows once for each.
pub(crate) mod part {
    /// All of it.
    pub(crate) const WHOLE: u8 = 0;
    /// The first fragment: its header is here.
    pub(crate) const FIRST: u8 = 1;
    /// Another fragment: nothing of the header is here.
    pub(crate) const LATER: u8 = 2;

    /// From the bits "more fragments" and the offset.
    #[inline(always)]
    pub(crate) const fn of(more: u32, offset: u32) -> u8 {
        let is_later = is_set(offset);
        ((is_later << 1) | (is_set(more) & !is_later)) as u8
    }

    /// 1 for any bits, else 0.
    #[inline(always)]
    const fn is_set(bits: u32) -> u32 {
        (bits | bits.wrapping_neg()) >> 31
    }
}

/// TCP flags of SCTP's chunk types that mean the same: what opens, breaks off and ends an association.
static SCTP_FLAGS: [u8; 16] = {
    let mut flags = [TCP_ACK; 16];
    flags[SCTP_INIT] = TCP_SYN;
    flags[SCTP_ABORT] = TCP_RST;
    flags[SCTP_SHUTDOWN] = TCP_FIN;
    flags[SCTP_SHUTDOWN_ACK] = TCP_FIN;
    flags
};

/// What the programs need to know of a TCP, UDP or SCTP packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Offset of the IP header from the start of the packet.
    pub(crate) l3: usize,
    /// Offset of the TCP, UDP or SCTP header.
    pub(crate) l4: usize,
    /// Addresses, ports and protocol.
    pub(crate) key: FlowKey,
    /// Identification of a fragmented packet, as it lies in the header.
    pub(crate) id: u32,
    /// TCP flags, those that mean the same for SCTP, 0 for UDP.
    tcp_flags: u8,
    /// Time to live or hop limit.
    pub(crate) life: u8,
    /// IPv6, not IPv4.
    pub(crate) v6: bool,
    /// Whole packet or fragment: see [`part`].
    pub(crate) part: u8,
    /// Seen where it leaves by a device, not where it comes in.
    pub(crate) egress: bool,
}

impl Packet {
    /// Nothing yet, for [`Self::parse`].
    #[inline(always)]
    pub(crate) fn empty(egress: bool) -> Self {
        Self {
            l3: 0,
            l4: 0,
            key: FlowKey::default(),
            id: 0,
            tcp_flags: 0,
            life: 0,
            v6: false,
            part: part::WHOLE,
            egress,
        }
    }

    /// Reads the headers, in place: a value that is returned would be copied, and the stack is
    /// small. `None` for everything that is not TCP, UDP or SCTP over IPv4 or IPv6, and for fragments
    /// of packets that are not ours: they pass untouched. `L3` is the offset of the IP header.
    #[inline(always)]
    pub(crate) fn parse<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        let skb = ctx.skb.skb;
        // SAFETY: plain reads of a live context.
        let (protocol, vlan) = unsafe { ((*skb).protocol as u16, (*skb).vlan_present) };
        // A tagged packet belongs to the VLAN device above this one and is seen again there.
        if vlan != 0 {
            return None;
        }
        match protocol {
            ETH_P_IP => self.parse_v4::<L3>(ctx),
            ETH_P_IPV6 => self.parse_v6::<L3>(ctx),
            _ => None,
        }
    }

    /// Sets where the headers are; the rest is the caller's.
    #[inline(always)]
    pub(crate) fn place(&mut self, l3: usize, l4: usize, v6: bool) {
        (self.l3, self.l4, self.v6, self.tcp_flags) = (l3, l4, v6, 0);
        (self.part, self.id) = (part::WHOLE, 0);
    }

    #[inline(always)]
    fn parse_v4<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + IPV4_LEN)?;
        let ihl = usize::from(*at::<u8>(ctx, L3)? & 0x0f) * 4;
        if ihl < IPV4_LEN {
            return None;
        }
        self.key.src = Addr::from_v4_word(*at::<u32>(ctx, L3 + 12)?);
        self.key.dst = Addr::from_v4_word(*at::<u32>(ctx, L3 + 16)?);
        self.life = *at::<u8>(ctx, L3 + 8)?;
        self.place(L3, L3 + ihl, false);
        let [id, fragment] = *at::<[u16; 2]>(ctx, L3 + 4)?;
        self.part =
            part::of(u32::from(fragment & MORE_FRAGMENTS), u32::from(fragment & FRAGMENT_OFFSET));
        self.id = u32::from(id);
        let proto = *at::<u8>(ctx, L3 + 9)?;
        self.parse_l4(ctx, proto)
    }

    #[inline(always)]
    fn parse_v6<const L3: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        ensure(ctx, L3 + IPV6_LEN)?;
        self.key.src = Addr(*at::<[u32; 4]>(ctx, L3 + 8)?);
        self.key.dst = Addr(*at::<[u32; 4]>(ctx, L3 + 24)?);
        self.life = *at::<u8>(ctx, L3 + 7)?;
        self.place(L3, L3 + IPV6_LEN, true);
        let next = *at::<u8>(ctx, L3 + 6)?;
        if matches!(next, proto::TCP | proto::UDP) {
            return self.parse_l4(ctx, next);
        }
        let found = extensions::walk(ctx, L3, next)?;
        self.l4 = extensions::l4_of(found);
        (self.part, self.id) = (extensions::part_of(found), extensions::id_of(found));
        self.parse_l4(ctx, extensions::proto_of(found))
    }

    #[inline(always)]
    fn parse_l4(&mut self, ctx: &TcContext, proto: u8) -> Option<()> {
        if self.is_later() {
            self.key.proto = proto;
            return fragments::recall(self).then_some(());
        }
        match proto {
            proto::TCP => {
                ensure(ctx, self.l4 + TCP_LEN)?;
                self.tcp_flags = *at::<u8>(ctx, self.l4 + 13)?;
            }
            proto::UDP => ensure(ctx, self.l4 + UDP_LEN)?,
            proto::SCTP => {
                ensure(ctx, self.l4 + SCTP_LEN)?;
                // Several packets of data in one: the list of their chunks begins here, and bytes
                // that are pulled out of the first ones are lost to it.
                if segment_size(ctx) == 0 {
                    ensure(ctx, self.l4 + SCTP_LEN + 4)?;
                    // All four: the verifier learns nothing from the check of a single byte.
                    let [chunk, ..] = *at::<[u8; 4]>(ctx, self.l4 + SCTP_LEN)?;
                    // Larger types mean nothing to a flow; those that end alike end it late at worst.
                    self.tcp_flags = SCTP_FLAGS[usize::from(chunk & 15)];
                }
            }
            _ => return None,
        }
        let src_port = Port(*at::<u16>(ctx, self.l4)?);
        let dst_port = Port(*at::<u16>(ctx, self.l4 + 2)?);
        self.key.set_rest(src_port, dst_port, proto);
        Some(())
    }

    /// Bytes of the IP packet as its header says.
    #[inline(always)]
    pub(crate) fn ip_len(&self, ctx: &TcContext) -> Option<u32> {
        Some(if self.v6 {
            u32::from(u16::from_be(*at::<u16>(ctx, self.l3 + 4)?)) + IPV6_LEN as u32
        } else {
            u32::from(u16::from_be(*at::<u16>(ctx, self.l3 + 2)?))
        })
    }

    /// Offset of the TCP or UDP checksum.
    #[inline(always)]
    pub(crate) fn l4_checksum(&self) -> usize {
        self.l4 + if self.is_udp() { UDP_CHECKSUM } else { TCP_CHECKSUM }
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
        self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    #[inline(always)]
    pub(crate) fn is_fin(&self) -> bool {
        self.tcp_flags & TCP_FIN != 0
    }

    #[inline(always)]
    pub(crate) fn is_rst(&self) -> bool {
        self.tcp_flags & TCP_RST != 0
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

/// skb->pkt_type of packets that are for this node (include/uapi/linux/if_packet.h).
pub(crate) const PACKET_HOST: u32 = 0;

/// Whether a packet that leaves was made here: it has not come in by any device.
#[inline(always)]
pub(crate) fn is_own(ctx: &TcContext) -> bool {
    // SAFETY: a plain read of a live context.
    unsafe { (*ctx.skb.skb).ingress_ifindex == 0 }
}

/// Words of 16 bits of an IPv4 header without options and of the TCP header behind it, up to its flags;
/// the same of IPv6.
type TcpOverIpv4 = [u16; (IPV4_LEN + 14) / 2];
type TcpOverIpv6 = [u16; (IPV6_LEN + 14) / 2];

/// The destination of a TCP packet that opens nothing, which is most of all packets: for them alone a
/// short look, with as little code as can be.
#[inline(always)]
pub(crate) fn opens_nothing<const L3: usize>(ctx: &TcContext) -> Option<Addr> {
    // SAFETY: a plain read of a live context.
    let (dst, flags) = match unsafe { (*ctx.skb.skb).protocol } as u16 {
        ETH_P_IP => {
            let words = at::<TcpOverIpv4>(ctx, L3)?;
            let [version, _] = words[0].to_ne_bytes();
            let [_, proto] = words[4].to_ne_bytes();
            if version != 0x45 || words[3] & FRAGMENT != 0 || proto != proto::TCP {
                return None;
            }
            let [_, flags] = words[16].to_ne_bytes();
            (Addr::from_v4_word(word_at::<8, _>(words)), flags)
        }
        ETH_P_IPV6 => {
            let words = at::<TcpOverIpv6>(ctx, L3)?;
            let [next, _] = words[3].to_ne_bytes();
            if next != proto::TCP {
                return None;
            }
            let [_, flags] = words[26].to_ne_bytes();
            let dst = [
                word_at::<12, _>(words),
                word_at::<14, _>(words),
                word_at::<16, _>(words),
                word_at::<18, _>(words),
            ];
            (Addr(dst), flags)
        }
        _ => return None,
    };
    (flags & (TCP_SYN | TCP_ACK) != TCP_SYN).then_some(dst)
}

/// Two words of 16 bits as they lie there.
#[inline(always)]
fn word_at<const I: usize, const N: usize>(words: &[u16; N]) -> u32 {
    let ([a, b], [c, d]) = (words[I].to_ne_bytes(), words[I + 1].to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// The destination of an IP packet whose header is in the linear part.
#[inline(always)]
pub(crate) fn destination<const L3: usize>(ctx: &TcContext) -> Option<Addr> {
    // SAFETY: a plain read of a live context.
    match unsafe { (*ctx.skb.skb).protocol } as u16 {
        ETH_P_IP => Some(Addr::from_v4_word(*at::<u32>(ctx, L3 + 16)?)),
        ETH_P_IPV6 => Some(Addr(*at::<[u32; 4]>(ctx, L3 + 24)?)),
        _ => None,
    }
}

/// Bytes of the largest segment of a packet that the hardware or the kernel cuts up, otherwise 0.
#[inline(always)]
pub(crate) fn segment_size(ctx: &TcContext) -> u32 {
    // SAFETY: a plain read of a live context.
    unsafe { (*ctx.skb.skb).gso_size }
}

/// Makes the first `len` bytes linear when they are not. `None`: the packet is shorter.
#[inline(always)]
pub(crate) fn ensure(ctx: &TcContext, len: usize) -> Option<()> {
    if ctx.data() + len <= ctx.data_end() {
        return Some(());
    }
    // SAFETY: the helper checks the length itself; packet pointers are re-read after it.
    if unsafe { bpf_skb_pull_data(ctx.skb.skb, len as u32) } != 0 {
        return None;
    }
    (ctx.data() + len <= ctx.data_end()).then_some(())
}

/// A bounds-checked view of packet bytes at `offset`.
#[inline(always)]
pub(crate) fn at<'a, T: Copy>(ctx: &'a TcContext, offset: usize) -> Option<&'a T> {
    let start = ctx.data() + offset;
    if start + core::mem::size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds as just checked; BPF has no alignment rule for packet loads on the
    // architectures that tc programs run on (NET_IP_ALIGN keeps headers aligned besides).
    Some(unsafe { &*(start as *const T) })
}

/// As [`at`], for several changes.
#[inline(always)]
pub(crate) fn at_mut<'a, T: Copy>(ctx: &'a TcContext, offset: usize) -> Option<&'a mut T> {
    let start = ctx.data() + offset;
    if start + core::mem::size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds as just checked; the verifier's prologue has unshared the packet, and
    // callers hold one view at a time.
    Some(unsafe { &mut *(start as *mut T) })
}

/// As [`at`], for writing.
#[inline(always)]
pub(crate) fn write<T: Copy>(ctx: &TcContext, offset: usize, value: T) -> Option<()> {
    *at_mut(ctx, offset)? = value;
    Some(())
}
