//! Sends packets on past the stack, back, or to this node.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, bpf_redir_neigh},
    helpers::{bpf_redirect, bpf_redirect_neigh, bpf_skb_change_type, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
use kproxy_common::flow::flow_flags;

use super::route::{LOOPBACK, Route};
use crate::{
    packet::headers::ethernet,
    skb::{self, PACKET_HOST, at, write},
    verdict::Verdict,
};

/// Where a packet goes that is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Back {
    /// Out of the device that it came in by, to the neighbour that sent it.
    Out,
    /// In by the device that it was to leave by: a process of this node sent it.
    In,
    /// On by the loopback device, which leads back to this node anyway.
    Stay,
}

/// Sends the packet to the next hop of the route.
#[inline(always)]
pub(crate) fn to_next_hop(route: &mut Route) -> Verdict {
    let size = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: the next hop is live and of the size said.
    let action = unsafe { bpf_redirect_neigh(route.device, &raw mut route.next_hop, size, 0) };
    Verdict::redirect(action)
}

/// Sends the packet back. `None`: it is too short to have been one.
#[inline(always)]
pub(crate) fn send_back<const L3: usize>(ctx: &TcContext, back: Back) -> Option<Verdict> {
    if back == Back::Stay {
        return Some(Verdict::PASS);
    }
    if L3 != 0 {
        let [a, b, c, d, e, f] = *at::<[u16; 6]>(ctx, 0)?;
        write(ctx, 0, [d, e, f, a, b, c])?;
    }
    let flags = if back == Back::In { u64::from(BPF_F_INGRESS) } else { 0 };
    // SAFETY: the device of a live context.
    Some(Verdict::redirect(unsafe { bpf_redirect(skb::device(ctx.skb.skb), flags) }))
}

/// Sends a request that leaves by an uplink back to this node, whose address the backend has. The mark
/// tells it from a packet of somebody who pretends to be this node.
#[inline(always)]
pub(crate) fn return_to_node(ctx: &TcContext) -> Option<Verdict> {
    skb::set_mark(ctx);
    send_back::<{ ethernet::LEN }>(ctx, Back::In)
}

/// What becomes of a packet for a process of this node that has been translated where it came in: its
/// entry's `flags` say whether the stack takes it as it is. Without an Ethernet header it cannot be
/// handed over.
#[inline(always)]
pub(crate) fn deliver<const L3: usize>(ctx: &TcContext, flags: u16) -> Verdict {
    if flags & flow_flags::DIRECT != 0 || L3 == 0 {
        Verdict::PASS
    } else {
        to_loopback(ctx.skb.skb)
    }
}

/// Hands a packet that has come in by any device to this node at its loopback device, together with
/// the route that the kernel finds for it: nothing is checked there any more.
#[inline(always)]
fn to_loopback(skb: *mut __sk_buff) -> Verdict {
    // SAFETY: a live context; no neighbour is named.
    let action = unsafe {
        // A port of a bridge takes what is for the bridge as somebody else's.
        bpf_skb_change_type(skb, PACKET_HOST);
        bpf_redirect_neigh(LOOPBACK, core::ptr::null_mut(), 0, 0)
    };
    Verdict::redirect(action)
}

/// Takes the route (`dst_entry`) off a packet that was to leave by it: until the kernel knows the
/// neighbour of another route, the packet would wait for the first route's, and then go to that one. No
/// helper does this alone; the data of a tunnel, without a tunnel, takes the route's place.
#[inline(always)]
pub(super) fn drop_dst(skb: *mut __sk_buff) {
    // The oldest form of `struct bpf_tunnel_key`: number and IPv4 address.
    let mut none = [0u32; 2];
    // SAFETY: a live context; the bytes are live and of the size said.
    unsafe { bpf_skb_set_tunnel_key(skb, none.as_mut_ptr().cast(), 8, 0) };
}
