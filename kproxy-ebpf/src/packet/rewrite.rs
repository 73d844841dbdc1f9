//! Rewrites the addresses and ports of a packet, and its checksums.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::bpf_l4_csum_replace,
    programs::TcContext,
};
use kproxy_common::{
    checksum, crc32c,
    flow::{FlowKey, FlowValue},
    net::{Addr, join},
};

use super::{
    Packet,
    headers::{ipv4, ipv6, sctp, tcp},
};
use crate::skb::{at, store, write};

/// Gives the packet the addresses and ports that its flow says, and takes `hops` (0 or 1) off its
/// time to live, which must not be at its end. `None`: the kernel refused (the packet may be half
/// written: drop it).
#[inline(never)]
pub(crate) fn rewrite<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
    hops: u8,
) -> Option<()> {
    let from = &packet.key;
    let to = &value.to;
    let delta = address_delta(packet.v6, from, to);
    if !packet.is_later() {
        rewrite_l4::<L3>(ctx, packet, to, delta)?;
    }
    if packet.v6 {
        // IPv6 has no header checksum to balance the new address, so skb->csum (CHECKSUM_COMPLETE)
        // must follow it: the helper above has taken the delta off, RECOMPUTE_CSUM puts it back
        // (kernel commit ead7f9b8de65 tells the story).
        let start = L3 + ipv6::PAYLOAD_LENGTH;
        let word = at::<u32>(ctx, start)?.to_be() - u32::from(hops);
        let (s, d) = (&to.src.0, &to.dst.0);
        let words = [word.to_be(), s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]];
        store(ctx, start, &words)?;
    } else {
        let old_sum = *at::<u16>(ctx, L3 + ipv4::CHECKSUM)?;
        let ttl = *at::<u8>(ctx, L3 + ipv4::TTL)?;
        let delta = checksum::add(delta, checksum::less_ttl(hops));
        write(ctx, L3 + ipv4::TTL, ttl - hops)?;
        write(ctx, L3 + ipv4::CHECKSUM, checksum::apply(old_sum, delta))?;
        write(ctx, L3 + ipv4::SRC, [to.src.v4_word(), to.dst.v4_word()])?;
    }
    Some(())
}

/// Ports and checksum of the TCP, UDP or SCTP header. `delta`: what the addresses change in sum.
#[inline(always)]
fn rewrite_l4<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    to: &FlowKey,
    delta: u32,
) -> Option<()> {
    let (old_ports, ports) = (port_word(&packet.key), port_word(to));
    if packet.is_sctp() {
        return if old_ports == ports { Some(()) } else { rewrite_sctp::<L3>(ctx, packet, ports) };
    }
    // A UDP checksum of zero means "none" and stays zero (RFC 768, RFC 6935).
    let udp = if packet.is_udp() { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    let (skb, sum) = (ctx.skb.skb, packet.l4_checksum() as u32);
    let flags = u64::from(BPF_F_PSEUDO_HDR) | udp;
    // SAFETY: the helpers check offsets; packet pointers are re-read after them.
    if unsafe { bpf_l4_csum_replace(skb, sum, 0, u64::from(delta), flags) } != 0 {
        return None;
    }
    if old_ports == ports {
        return Some(());
    }
    let (old, new) = (u64::from(old_ports), u64::from(ports));
    // SAFETY: as above.
    if unsafe { bpf_l4_csum_replace(skb, sum, old, new, udp | 4) } != 0 {
        return None;
    }
    write(ctx, packet.l4(), ports)
}

/// Has a TCP packet acknowledge this number too.
#[inline(always)]
pub(crate) fn acknowledge(ctx: &TcContext, packet: &Packet, number: u32) -> Option<()> {
    let start = packet.l4() + tcp::ACKNOWLEDGEMENT;
    let old = *at::<[u32; 2]>(ctx, start)?;
    let new = [number.to_be(), old[1] | u32::from_ne_bytes([0, tcp::ACK, 0, 0])];
    write(ctx, start, new)?;
    let sum = packet.l4_checksum() as u32;
    for (old, new) in old.into_iter().zip(new) {
        // SAFETY: the helper checks the offset; packet pointers are re-read after it.
        let replaced =
            unsafe { bpf_l4_csum_replace(ctx.skb.skb, sum, u64::from(old), u64::from(new), 4) };
        if replaced != 0 {
            return None;
        }
    }
    Some(())
}

/// Ports of SCTP. Its checksum is over the ports, but not over the addresses. Zero means that the
/// hardware or the stack is still to write it.
#[inline(never)]
fn rewrite_sctp<const L3: usize>(ctx: &TcContext, packet: &Packet, ports: u32) -> Option<()> {
    // Of how many bytes it is a fragment does not say.
    if packet.is_first() {
        return None;
    }
    let len = packet.len.wrapping_sub((packet.l4() - L3) as u32);
    let l4 = packet.l4();
    let [old, _, sum] = *at::<[u32; sctp::LEN / 4]>(ctx, l4)?;
    if sum != 0 {
        let change = crc32c::change(u32::from_le(old ^ ports), len & 0xffff);
        store(ctx, l4 + sctp::CHECKSUM, &[sum ^ change.to_le()])?;
    }
    store(ctx, l4, &[ports])
}

/// Both ports, as they lie in the packet.
#[inline(always)]
fn port_word(key: &FlowKey) -> u32 {
    join(key.src_port.0, key.dst_port.0)
}

/// By how much the sum of the addresses of two packets of one family differs.
#[inline(always)]
pub(crate) fn address_delta(v6: bool, from: &FlowKey, to: &FlowKey) -> u32 {
    let word = |key: &FlowKey| [key.src.v4_word(), key.dst.v4_word()];
    if !v6 {
        return checksum::difference(&word(from), &word(to));
    }
    let words = |FlowKey { src: Addr(s), dst: Addr(d), .. }: &FlowKey| {
        [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]
    };
    checksum::difference(&words(from), &words(to))
}
