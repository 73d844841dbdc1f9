//! Rewrites the addresses and ports of a packet, and its checksums.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_l4_csum_replace, bpf_skb_store_bytes},
    programs::TcContext,
};
use kproxy_common::{
    checksum,
    flow::{FlowKey, FlowValue},
};

use crate::packet::{Packet, at, write};

/// Offsets of checksums in their headers.
pub(crate) const IPV4_CHECKSUM: usize = 10;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_CHECKSUM: usize = 6;

/// Gives the packet the addresses and ports that its flow says, and takes `hops` (0 or 1) off its
/// time to live, which must not be at its end. `None`: the kernel refused (the packet may be half
/// written: drop it).
#[inline(never)]
pub(crate) fn rewrite(ctx: &TcContext, packet: &Packet, value: &FlowValue, hops: u8) -> Option<()> {
    let from = &packet.key;
    let to = &value.to;
    // A UDP checksum of zero means "none" and stays zero (RFC 768, RFC 6935).
    let udp = if packet.is_udp() { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    let l4_checksum = packet.l4_checksum() as u32;
    let skb = ctx.skb.skb;
    let delta = address_delta(packet.v6, from, to);
    let (old_ports, ports) = (port_word(from), port_word(to));
    // SAFETY: the helpers check offsets and sizes; packet pointers are re-read after them.
    unsafe {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | udp;
        if bpf_l4_csum_replace(skb, l4_checksum, 0, u64::from(delta), flags) != 0 {
            return None;
        }
        if old_ports != ports {
            let (old, new) = (u64::from(old_ports), u64::from(ports));
            if bpf_l4_csum_replace(skb, l4_checksum, old, new, udp | 4) != 0 {
                return None;
            }
        }
    }
    if packet.v6 {
        // IPv6 has no header checksum to balance the new address, so skb->csum (CHECKSUM_COMPLETE)
        // must follow it: the helper above has taken the delta off, RECOMPUTE_CSUM puts it back
        // (kernel commit ead7f9b8de65 tells the story).
        let word = at::<u32>(ctx, packet.l3 + 4)?.to_be() - u32::from(hops);
        let (s, d) = (&to.src.0, &to.dst.0);
        let words = [word.to_be(), s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]];
        store(ctx, packet.l3 + 4, &words)?;
    } else {
        let old_sum = *at::<u16>(ctx, packet.l3 + IPV4_CHECKSUM)?;
        let life = *at::<u8>(ctx, packet.l3 + 8)?;
        let delta = checksum::add(delta, checksum::less_life(hops));
        write(ctx, packet.l3 + 8, life - hops)?;
        write(ctx, packet.l3 + IPV4_CHECKSUM, checksum::apply(old_sum, delta))?;
        write(ctx, packet.l3 + 12, [to.src.v4_word(), to.dst.v4_word()])?;
    }
    if old_ports != ports {
        write(ctx, packet.l4, ports)?;
    }
    Some(())
}

/// Writes words at `offset`; skb->csum follows.
#[inline(always)]
pub(crate) fn store<const N: usize>(
    ctx: &TcContext,
    offset: usize,
    words: &[u32; N],
) -> Option<()> {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: live bytes; the helper checks the offset.
    let stored = unsafe {
        bpf_skb_store_bytes(ctx.skb.skb, offset as u32, words.as_ptr().cast(), N as u32 * 4, flags)
    };
    (stored == 0).then_some(())
}

/// Both ports, as they lie in the packet.
#[inline(always)]
fn port_word(key: &FlowKey) -> u32 {
    let [a, b] = key.src_port.0.to_ne_bytes();
    let [c, d] = key.dst_port.0.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// By how much the sum of the addresses of two packets of one family differs.
#[inline(always)]
pub(crate) fn address_delta(v6: bool, from: &FlowKey, to: &FlowKey) -> u32 {
    let word = |key: &FlowKey| [key.src.v4_word(), key.dst.v4_word()];
    if !v6 {
        return checksum::difference(&word(from), &word(to));
    }
    let source = checksum::difference(&from.src.0, &to.src.0);
    checksum::add(source, checksum::difference(&from.dst.0, &to.dst.0))
}
