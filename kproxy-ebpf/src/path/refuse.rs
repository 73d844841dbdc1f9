//! Answers that the programs make themselves: a reset or an ICMP error, out of the packet that it is
//! about, back to where it came from. Netfilter could do it, but its hooks would put connection
//! tracking into the way of every packet.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail},
    programs::TcContext,
};
use kproxy_common::{
    checksum,
    drop_reason::{DropReason, REFUSALS_A_SECOND},
    flow::FlowKey,
    net::{Addr, proto},
};

use super::redirect::{Back, send_back};
use crate::{
    packet::{
        Packet,
        headers::{icmp, ipv4, ipv6, ports, sctp, tcp, udp},
    },
    skb::{at, ensure, store, write},
    stats::{self, Limited},
    verdict::{Kind, Verdict},
};

/// Time to live of what starts here (net.ipv4.ip_default_ttl).
const TTL: u8 = 64;

/// An ICMP error: type and code in IPv4 (RFC 792, RFC 1191) and in IPv6 (RFC 4443), and the MTU. One
/// register: a BPF function has five.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Error(u64);

impl Error {
    const PORT_UNREACHABLE: Self = Self::new([3, 3], [1, 4], 0);
    const TIME_EXCEEDED: Self = Self::new([11, 0], [3, 0], 0);

    #[inline(always)]
    const fn too_big(mtu: u32) -> Self {
        Self::new([3, 4], [2, 0], mtu)
    }

    #[inline(always)]
    const fn new(v4: [u8; 2], v6: [u8; 2], mtu: u32) -> Self {
        Self((mtu as u64) << 32 | u32::from_ne_bytes([v4[0], v4[1], v6[0], v6[1]]) as u64)
    }

    /// Type and code of IPv4, and of IPv6.
    #[inline(always)]
    const fn types(self) -> [u8; 4] {
        (self.0 as u32).to_ne_bytes()
    }

    #[inline(always)]
    const fn mtu(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Tells the sender of a packet that ends here what the verdict on it is, if it is one of those; a refusal
/// as the stack does for a closed port. What becomes of the answer, or of the packet.
#[inline(always)]
pub(crate) fn answer<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    verdict: Verdict,
    back: Back,
) -> Verdict {
    if !verdict.is_answered() {
        return verdict;
    }
    let service = verdict.service();
    let error = if verdict.is(Kind::Refuse) {
        if packet.is_tcp() {
            return answer_reset::<L3>(ctx, packet, service, back);
        }
        Error::PORT_UNREACHABLE
    } else if verdict.is(Kind::TooBig) {
        Error::too_big(verdict.number())
    } else {
        Error::TIME_EXCEEDED
    };
    answer_error::<L3>(ctx, packet, error, service, back)
}

#[inline(never)]
fn answer_reset<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
    back: Back,
) -> Verdict {
    try_reset::<L3>(ctx, packet, back).unwrap_or_else(|reason| Verdict::drop(service, reason))
}

#[inline(always)]
fn try_reset<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    back: Back,
) -> Result<Verdict, DropReason> {
    check(&packet.key)?;
    reset::<L3>(ctx, packet).ok_or(DropReason::RewriteFailed)?;
    send_back::<L3>(ctx, back).ok_or(DropReason::RewriteFailed)
}

/// Whether an answer may be sent: not to a group or nobody (RFC 1122 section 3.2.2), and not too
/// many.
#[inline(always)]
fn check(key: &FlowKey) -> Result<(), DropReason> {
    let first = if key.src.is_v4() { key.src.0[3] } else { key.src.0[0] }.to_ne_bytes()[0];
    let nobody = if key.src.is_v4() { first == 0 || first >= 224 } else { first == 0xff };
    if nobody || key.src == Addr::default() {
        return Err(DropReason::RefusalLimit);
    }
    let may = stats::may(Limited::Refusals, REFUSALS_A_SECOND);
    if may { Ok(()) } else { Err(DropReason::RefusalLimit) }
}

/// Makes a reset out of a packet (RFC 9293 section 3.5.2). Length and options stay: they say nothing in
/// a reset, and a packet whose checksum the hardware is still to write keeps its layout.
#[inline(always)]
fn reset<const L3: usize>(ctx: &TcContext, packet: &Packet) -> Option<()> {
    let l4 = packet.l4();
    let old = *at::<[u32; 3]>(ctx, l4 + tcp::SEQUENCE)?;
    let [sequence, acknowledgement, flags] = old;
    let [offset, bits, ..] = flags.to_ne_bytes();
    let header = u32::from(offset >> 4) * 4;
    let total = packet.len - (l4 - L3) as u32;
    // A SYN counts one, and so does each byte that comes with it (RFC 7413).
    let length = total.saturating_sub(header) + u32::from(bits & tcp::SYN != 0);
    let acknowledged = u32::from_be(sequence).wrapping_add(length).to_be();
    // A SYN acknowledges nothing: 0. Others expect this number and look at nothing else.
    let new =
        [acknowledgement, acknowledged, u32::from_ne_bytes([offset, tcp::RST | tcp::ACK, 0, 0])];
    let delta = u64::from(checksum::difference(&old, &new));
    // SAFETY: the helper checks the offset.
    if unsafe { bpf_l4_csum_replace(ctx.skb.skb, packet.l4_checksum() as u32, 0, delta, 0) } != 0 {
        return None;
    }
    write(ctx, l4 + tcp::SEQUENCE, new)?;
    // Swapping ports and addresses changes no sum.
    write(ctx, l4 + ports::SRC, [packet.key.dst_port.0, packet.key.src_port.0])?;
    answer_header::<L3>(ctx, packet)
}

/// Swaps the addresses of the IP header and renews its time to live.
#[inline(always)]
fn answer_header<const L3: usize>(ctx: &TcContext, packet: &Packet) -> Option<()> {
    let key = &packet.key;
    if packet.v6 {
        let start = L3 + ipv6::PAYLOAD_LENGTH;
        let [a, b, c, _] = *at::<[u8; 4]>(ctx, start)?;
        let (s, d) = (&key.dst.0, &key.src.0);
        let first = u32::from_ne_bytes([a, b, c, TTL]);
        let words = [first, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]];
        return store(ctx, start, &words);
    }
    let [ttl, protocol] = *at::<[u8; 2]>(ctx, L3 + ipv4::TTL)?;
    let (old, new) = ([ttl, protocol], [TTL, protocol]);
    let delta = u32::from(!u16::from_ne_bytes(old)) + u32::from(u16::from_ne_bytes(new));
    let sum = *at::<u16>(ctx, L3 + ipv4::CHECKSUM)?;
    write(ctx, L3 + ipv4::TTL, new)?;
    write(ctx, L3 + ipv4::CHECKSUM, checksum::apply(sum, delta))?;
    write(ctx, L3 + ipv4::SRC, [key.dst.v4_word(), key.src.v4_word()])
}

/// Answers with an ICMP error that holds the IP header and the first bytes of what follows.
#[inline(never)]
fn answer_error<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    error: Error,
    service: u32,
    back: Back,
) -> Verdict {
    try_error::<L3>(ctx, packet, error, back)
        .unwrap_or_else(|reason| Verdict::drop(service, reason))
}

#[inline(always)]
fn try_error<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    error: Error,
    back: Back,
) -> Result<Verdict, DropReason> {
    check(&packet.key)?;
    let made = if packet.v6 {
        make_v6::<L3>(ctx, packet, error)
    } else {
        make_v4::<L3>(ctx, packet, error)
    };
    made.and_then(|()| send_back::<L3>(ctx, back)).ok_or(DropReason::RewriteFailed)
}

/// Cuts the packet after the first bytes of its TCP, UDP or SCTP header. The sum of these bytes as
/// they will be on the wire.
#[inline(always)]
fn cut(ctx: &TcContext, packet: &Packet) -> Option<(usize, u32)> {
    if packet.is_sctp() {
        // A checksum that is still to be written stays so; it has to stay in the packet, too.
        let end = packet.l4() + sctp::LEN;
        if !packet.is_syn() {
            shorten(ctx, end)?;
            return Some((end, sum_of(at::<[u32; sctp::LEN / 4]>(ctx, packet.l4())?)));
        }
        // Who sent an INIT believes only what holds the tag in it (RFC 9260 section 10, rule 6).
        let end = end + sctp::INIT_WITH_TAG;
        ensure(ctx, end)?;
        shorten(ctx, end)?;
        let sum = sum_of(at::<[u32; (sctp::LEN + sctp::INIT_WITH_TAG) / 4]>(ctx, packet.l4())?);
        return Some((end, sum));
    }
    let at_sum = packet.l4_checksum();
    let before = *at::<u16>(ctx, at_sum)?;
    // A checksum that is still to be written (CHECKSUM_PARTIAL) is the one that this call leaves
    // alone. What gets written makes the rest sum up to the inverse of what is there now.
    // SAFETY: the helper checks the offset.
    if unsafe { bpf_l4_csum_replace(ctx.skb.skb, at_sum as u32, 0, 1, 0) } != 0 {
        return None;
    }
    let pending = *at::<u16>(ctx, at_sum)? == before;
    write(ctx, at_sum, before)?;
    let kept = if packet.is_udp() { udp::LEN } else { tcp::LEN };
    let end = packet.l4() + kept;
    shorten(ctx, end)?;
    if pending {
        return Some((end, u32::from(!before)));
    }
    let sum = if packet.is_udp() {
        sum_of(at::<[u32; udp::LEN / 4]>(ctx, packet.l4())?)
    } else {
        sum_of(at::<[u32; tcp::LEN / 4]>(ctx, packet.l4())?)
    };
    Some((end, sum))
}

/// Cuts the packet off at `end`.
#[inline(always)]
fn shorten(ctx: &TcContext, end: usize) -> Option<()> {
    // SAFETY: the helper checks the length.
    let is_short = ctx.len() as usize <= end
        || unsafe { bpf_skb_change_tail(ctx.skb.skb, end as u32, 0) } == 0;
    is_short.then_some(())
}

/// The folded sum of these words.
#[inline(always)]
fn sum_of<const N: usize>(words: &[u32; N]) -> u32 {
    u32::from(checksum::fold(checksum::sum(words)))
}

/// As [`sum_of`], of the headers between that of IPv6 and the next. `None`: too many bytes.
#[inline(always)]
fn sum_of_extensions<const L3: usize>(ctx: &TcContext, packet: &Packet) -> Option<u32> {
    if packet.l4() == L3 + ipv6::LEN {
        return Some(0);
    }
    // Out of line, and a number: see `extensions`.
    let sum = sum_between(ctx, (L3 + ipv6::LEN) as u32, packet.l4() as u32);
    (sum != TOO_LONG).then_some(sum)
}

const TOO_LONG: u32 = u32::MAX;

#[inline(never)]
fn sum_between(ctx: &TcContext, from: u32, to: u32) -> u32 {
    /// Extension headers have a multiple of eight bytes.
    const UNIT: usize = 8;
    const MOST: usize = 16;
    let (mut sum, mut unit) = (0, 0);
    let mut offset = from as usize & 0xff;
    while unit < MOST {
        if offset >= to as usize {
            return sum;
        }
        let Some(words) = at::<[u32; UNIT / 4]>(ctx, offset) else { return TOO_LONG };
        sum += sum_of(words);
        offset += UNIT;
        unit += 1;
    }
    if offset >= to as usize { sum } else { TOO_LONG }
}

#[inline(always)]
fn make_room(skb: *mut __sk_buff, bytes: usize) -> Option<()> {
    // SAFETY: the helper checks everything.
    let made = unsafe { bpf_skb_adjust_room(skb, bytes as i32, BPF_ADJ_ROOM_MAC, 0) };
    (made == 0).then_some(())
}

#[inline(always)]
fn make_v4<const L3: usize>(ctx: &TcContext, packet: &Packet, error: Error) -> Option<()> {
    let (end, sum) = cut(ctx, packet)?;
    make_room(ctx.skb.skb, ipv4::LEN + icmp::LEN)?;
    let (l3, key) = (L3, &packet.key);
    let length = (ipv4::LEN + icmp::LEN + end - l3) as u16;
    let [high, low] = length.to_be_bytes();
    let mut header = [
        // Version and length, type of service "internetwork control" (RFC 1812 section 4.3.2.5).
        u32::from_ne_bytes([ipv4::NO_OPTIONS, 0xc0, high, low]),
        // Do not fragment.
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([TTL, proto::ICMP, 0, 0]),
        key.dst.v4_word(),
        key.src.v4_word(),
    ];
    let [lower, upper] = (!(sum_of(&header) as u16)).to_ne_bytes();
    header[2] = u32::from_ne_bytes([TTL, proto::ICMP, lower, upper]);
    let mtu = (error.mtu() as u16).to_be_bytes();
    let [kind, code, ..] = error.types();
    let mut message =
        [u32::from_ne_bytes([kind, code, 0, 0]), u32::from_ne_bytes([0, 0, mtu[0], mtu[1]])];
    // The IP header inside sums up to nothing: it has a checksum of its own.
    let [lower, upper] = (!checksum::fold(sum_of(&message) + sum)).to_ne_bytes();
    message[0] = u32::from_ne_bytes([kind, code, lower, upper]);
    write(ctx, l3, header)?;
    write(ctx, l3 + ipv4::LEN, message)
}

#[inline(always)]
fn make_v6<const L3: usize>(ctx: &TcContext, packet: &Packet, error: Error) -> Option<()> {
    let (end, sum) = cut(ctx, packet)?;
    let (l3, key) = (L3, &packet.key);
    let inner =
        sum_of(at::<[u32; ipv6::LEN / 4]>(ctx, l3)?) + sum_of_extensions::<L3>(ctx, packet)?;
    make_room(ctx.skb.skb, ipv6::LEN + icmp::LEN)?;
    let length = (icmp::LEN + end - l3) as u16;
    let [high, low] = length.to_be_bytes();
    let header =
        [u32::from_ne_bytes([0x60, 0, 0, 0]), u32::from_ne_bytes([high, low, proto::ICMPV6, TTL])];
    // The pseudo header (RFC 8200 section 8.1).
    let rest = [u32::from(length).to_be(), u32::from(proto::ICMPV6).to_be()];
    let pseudo = sum_of(&key.dst.0) + sum_of(&key.src.0) + sum_of(&rest);
    let [_, _, kind, code] = error.types();
    let mut message = [u32::from_ne_bytes([kind, code, 0, 0]), error.mtu().to_be()];
    let total = sum_of(&message) + pseudo + inner + sum;
    let [lower, upper] = (!checksum::fold(total)).to_ne_bytes();
    message[0] = u32::from_ne_bytes([kind, code, lower, upper]);
    write(ctx, l3, header)?;
    write(ctx, l3 + ipv6::SRC, key.dst.0)?;
    write(ctx, l3 + ipv6::DST, key.src.0)?;
    write(ctx, l3 + ipv6::LEN, message)
}
