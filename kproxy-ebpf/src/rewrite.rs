//! Rewrites one end (address and port) of a packet and its checksums.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_store_bytes},
    programs::TcContext,
};
use kproxy_common::{
    checksum,
    net::{Addr, Port},
};

use crate::packet::{Packet, at, write};

/// Which end of the packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

const IPV4_CHECKSUM: usize = 10;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Replaces one end. `None`: the kernel refused (the packet may be half written: drop it).
#[inline(always)]
pub(crate) fn rewrite(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    addr: &Addr,
    port: Port,
) -> Option<()> {
    let (old_addr, old_port) = match end {
        End::Source => (&packet.key.src, packet.key.src_port),
        End::Destination => (&packet.key.dst, packet.key.dst_port),
    };
    // A UDP checksum of zero means "none" and stays zero (RFC 768, RFC 6935).
    let (l4_checksum, udp) = if packet.is_udp() {
        (packet.l4 + UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0))
    } else {
        (packet.l4 + TCP_CHECKSUM, 0)
    };
    let skb = ctx.skb.skb;
    let delta = address_delta(packet.v6, old_addr, addr);
    let port_at = packet.l4 + if end == End::Source { 0 } else { 2 };
    // SAFETY: the helpers check offsets and sizes; packet pointers are re-read after them.
    unsafe {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | udp;
        if bpf_l4_csum_replace(skb, l4_checksum as u32, 0, delta as u64, flags) != 0 {
            return None;
        }
        if old_port != port {
            let (from, to) = (u64::from(old_port.0), u64::from(port.0));
            if bpf_l4_csum_replace(skb, l4_checksum as u32, from, to, udp | 2) != 0 {
                return None;
            }
        }
    }
    if packet.v6 {
        // IPv6 has no header checksum to balance the new address, so skb->csum (CHECKSUM_COMPLETE)
        // must follow it: the helper above has taken the delta off, RECOMPUTE_CSUM puts it back
        // (kernel commit ead7f9b8de65 tells the story).
        let offset = packet.l3 + if end == End::Source { 8 } else { 24 };
        let words = addr.0;
        // SAFETY: sixteen live bytes.
        let stored = unsafe {
            bpf_skb_store_bytes(
                skb,
                offset as u32,
                words.as_ptr().cast(),
                16,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            )
        };
        if stored != 0 {
            return None;
        }
    } else {
        let old_sum = *at::<u16>(ctx, packet.l3 + IPV4_CHECKSUM)?;
        write(ctx, packet.l3 + IPV4_CHECKSUM, checksum::apply(old_sum, delta as u32))?;
        let offset = packet.l3 + if end == End::Source { 12 } else { 16 };
        write(ctx, offset, addr.v4_word())?;
    }
    if old_port != port {
        write(ctx, port_at, port.0)?;
    }
    Some(())
}

/// Checksum difference between two addresses of the packet's family.
#[inline(always)]
fn address_delta(v6: bool, from: &Addr, to: &Addr) -> i64 {
    let mut from = from.0;
    let mut to = to.0;
    // SAFETY: four or sixteen live bytes each.
    unsafe {
        if v6 {
            bpf_csum_diff(from.as_mut_ptr(), 16, to.as_mut_ptr(), 16, 0)
        } else {
            bpf_csum_diff(from.as_mut_ptr().add(3), 4, to.as_mut_ptr().add(3), 4, 0)
        }
    }
}
