//! Packets of connections to backends elsewhere: both ends are rewritten and the packet goes on at
//! once, past the stack. So do the ICMP errors about them.

use aya_ebpf::programs::TcContext;
use kproxy_common::{
    config::uplink_flags,
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue, flow_flags},
};

use super::{
    redirect::{self, Back},
    refuse,
    route::{self, Route},
};
use crate::{
    maps::UPLINKS,
    packet::{Packet, headers::ipv4, icmp_error::IcmpError, rewrite::rewrite},
    skb::at,
    verdict::Verdict,
};

/// Translates the packet and sends it on, or tells its sender why not.
#[inline(always)]
pub(crate) fn forward<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
) -> Verdict {
    // The stack has room for one of the two calls only, not for one in the other.
    refuse::answer::<L3>(ctx, packet, send::<L3>(ctx, packet, value), Back::Out)
}

#[inline(never)]
fn send<const L3: usize>(ctx: &TcContext, packet: &Packet, value: &FlowValue) -> Verdict {
    let failed = |reason| Verdict::drop(value.service, reason);
    try_send::<L3>(ctx, packet, value).unwrap_or_else(failed)
}

#[inline(always)]
fn try_send<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
) -> Result<Verdict, DropReason> {
    // Without an Ethernet header the kernel cannot redirect to a neighbour. Such devices get no
    // connections of this kind, but their answers may come in there.
    if L3 == 0 {
        return Err(DropReason::NoRoute);
    }
    // The kernel routes before it changes the source.
    let mut routed = value.to;
    (routed.src, routed.src_port) = (packet.key.src, packet.key.src_port);
    let mut route = Route::none();
    let size = packet.largest_len::<L3>(ctx).ok_or(DropReason::RewriteFailed)?;
    if let Some(mtu) = find_route::<L3>(ctx, packet, &routed, size, &mut route) {
        return Ok(Verdict::too_big(value.service, mtu));
    }
    if route.device == 0 {
        return Err(DropReason::NoRoute);
    }
    if packet.ttl <= 1 {
        return Ok(Verdict::time_exceeded(value.service));
    }
    rewrite::<L3>(ctx, packet, value, 1).ok_or(DropReason::RewriteFailed)?;
    Ok(redirect::to_next_hop(&mut route))
}

/// As [`forward`] for a packet that a process of this node sends, or an answer that this node gives
/// itself. `back`: the way back to the process.
#[inline(always)]
pub(crate) fn forward_own<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
    back: Back,
) -> Verdict {
    refuse::answer::<L3>(ctx, packet, send_own::<L3>(ctx, packet, value, back), back)
}

#[inline(never)]
fn send_own<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
    back: Back,
) -> Verdict {
    let failed = |reason| Verdict::drop(value.service, reason);
    try_send_own::<L3>(ctx, packet, value, back).unwrap_or_else(failed)
}

#[inline(always)]
fn try_send_own<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
    back: Back,
) -> Result<Verdict, DropReason> {
    let failed = DropReason::RewriteFailed;
    let is_here = value.flags & (flow_flags::HERE | flow_flags::REVERSE) != 0;
    if L3 != 0 && is_here && back == Back::In {
        return redirect::return_to_node(ctx).ok_or(failed);
    }
    // Without an Ethernet header the kernel can only send it on where it was to go.
    let keeps_route = is_here && L3 != 0 || L3 == 0 && value.flags & flow_flags::DIRECT != 0;
    let mut route = Route::none();
    if !keeps_route {
        let size = packet.largest_len::<L3>(ctx).ok_or(failed)?;
        if L3 != 0
            && let Some(mtu) = find_route::<L3>(ctx, packet, &value.to, size, &mut route)
        {
            return Ok(Verdict::too_big(value.service, mtu));
        }
        if route.device == 0 {
            return Err(DropReason::NoRoute);
        }
    }
    rewrite::<L3>(ctx, packet, value, 0).ok_or(failed)?;
    if keeps_route {
        return Ok(Verdict::PASS);
    }
    redirect::drop_dst(ctx.skb.skb);
    Ok(redirect::to_next_hop(&mut route))
}

/// Finds the route. `Some`: it has a smaller MTU, which the sender is to be told.
#[inline(always)]
fn find_route<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    key: &FlowKey,
    size: u32,
    route: &mut Route,
) -> Option<u32> {
    let skb = ctx.skb.skb;
    route::find(skb, key, size, route);
    if route.mtu == 0 {
        return None;
    }
    let fragment = at::<u16>(ctx, L3 + ipv4::FRAGMENT).unwrap_or(&0);
    if packet.v6 || fragment & ipv4::DO_NOT_FRAGMENT != 0 {
        return Some(route.mtu);
    }
    // May be fragmented, which overlays do with what they make of it. Elsewhere the sender is told,
    // though it has not asked: nobody else would cut it.
    *route = Route::none();
    route::find(skb, key, 0, route);
    (route.mtu != 0 && !is_overlay(route.device)).then_some(route.mtu)
}

/// Whether the device cuts its outer packets.
#[inline(always)]
fn is_overlay(device: u32) -> bool {
    // SAFETY: read at once; user space only ever replaces whole elements.
    unsafe { UPLINKS.get(&device) }.is_some_and(|uplink| uplink.flags & uplink_flags::OVERLAY != 0)
}

/// Translates an ICMP error and sends it on. Errors are not told of errors (RFC 1122 section 3.2.2).
#[inline(always)]
pub(crate) fn forward_error<const L3: usize>(
    ctx: &TcContext,
    error: &IcmpError,
) -> Result<Verdict, DropReason> {
    if L3 == 0 {
        return Err(DropReason::NoRoute);
    }
    let mut route = Route::none();
    route::find(ctx.skb.skb, &error.to, 0, &mut route);
    if route.device == 0 || error.outer.ttl <= 1 {
        return Err(DropReason::NoRoute);
    }
    error.rewrite::<L3>(ctx, 1).ok_or(DropReason::RewriteFailed)?;
    Ok(redirect::to_next_hop(&mut route))
}

/// As [`forward_error`] for an error of this node.
#[inline(always)]
pub(crate) fn forward_own_error<const L3: usize>(
    ctx: &TcContext,
    error: &IcmpError,
) -> Result<Verdict, DropReason> {
    redirect::drop_dst(ctx.skb.skb);
    forward_error::<L3>(ctx, error)
}
