//! Packets of connections to backends elsewhere: both ends are rewritten and the packet goes on at
//! once, past the stack. So do the ICMP errors about them.

use aya_ebpf::programs::TcContext;
use kproxy_common::{
    config::uplink_flags,
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue, flow_flags},
};

use crate::{
    NEXT, action,
    hooks::node,
    icmp::IcmpError,
    maps::UPLINKS,
    packet::{Packet, UDP_LEN, at, segment_size},
    refuse::{self, Back, Error},
    rewrite::rewrite,
    route::{self, Route},
};

/// IPv4 "do not fragment" (RFC 791 section 3.1).
const DO_NOT_FRAGMENT: u16 = 0x4000u16.to_be();

/// What [`pass_on`] returns for a packet whose time is over. Actions are small numbers, and MTUs
/// larger ones.
const TIME_IS_OVER: i32 = -2;
const LARGEST_ACTION: i32 = 64;

/// Translates the packet and sends it on: the action of the program.
#[inline(always)]
pub(crate) fn forward<const L3: usize>(ctx: &TcContext, packet: &Packet, value: &FlowValue) -> i32 {
    // The stack has room for one of the two calls only, not for one in the other.
    let error = match pass_on::<L3>(ctx, packet, value) {
        TIME_IS_OVER => Error::TIME_EXCEEDED,
        mtu if mtu > LARGEST_ACTION => Error::too_big(mtu as u32),
        action => return action,
    };
    refuse::error::<L3>(ctx, packet, &error, value.service, Back::Out)
}

/// As [`forward`] for a packet that a process of this node sends, or an answer that this node gives
/// itself. The process is told of errors by `back`.
#[inline(always)]
pub(crate) fn forward_own<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
    back: Back,
) -> i32 {
    let action = send::<L3>(ctx, packet, value, back);
    if action <= LARGEST_ACTION {
        return action;
    }
    refuse::error::<L3>(ctx, packet, &Error::too_big(action as u32), value.service, back)
}

/// The action, or the MTU that the packet exceeds.
#[inline(never)]
fn send<const L3: usize>(ctx: &TcContext, packet: &Packet, value: &FlowValue, back: Back) -> i32 {
    action(value.service, try_send::<L3>(ctx, packet, value, back))
}

#[inline(always)]
fn try_send<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
    back: Back,
) -> Result<i32, DropReason> {
    let failed = DropReason::RewriteFailed;
    let is_here = value.flags & (flow_flags::HERE | flow_flags::REVERSE) != 0;
    if L3 != 0 && is_here && back == Back::In {
        return node::turn(ctx).ok_or(failed);
    }
    // Without an Ethernet header the kernel can only send it on where it was to go.
    let goes_on = is_here && L3 != 0 || L3 == 0 && value.flags & flow_flags::DIRECT != 0;
    let mut route = Route::none();
    if !goes_on {
        let size = size(ctx, packet).ok_or(failed)?;
        if L3 != 0
            && let Some(mtu) = route_of(ctx, packet, &value.to, size, &mut route)
        {
            return Ok(mtu);
        }
        if route.device == 0 {
            return Err(DropReason::NoRoute);
        }
    }
    rewrite(ctx, packet, value, 0).ok_or(failed)?;
    if goes_on {
        return Ok(NEXT);
    }
    route::take_off(ctx.skb.skb);
    Ok(route::redirect(&mut route))
}

/// Finds the route. `Some`: it has a smaller MTU, which the sender is to be told.
#[inline(always)]
fn route_of(
    ctx: &TcContext,
    packet: &Packet,
    key: &FlowKey,
    size: u32,
    route: &mut Route,
) -> Option<i32> {
    let skb = ctx.skb.skb;
    route::find(skb, key, size, route);
    if route.mtu == 0 {
        return None;
    }
    if packet.v6 || *at::<u16>(ctx, packet.l3 + 6).unwrap_or(&0) & DO_NOT_FRAGMENT != 0 {
        return Some(route.mtu as i32);
    }
    // May be fragmented, which overlays do with what they make of it. Elsewhere the sender is told,
    // though it has not asked: nobody else would cut it.
    *route = Route::none();
    route::find(skb, key, 0, route);
    (route.mtu != 0 && !is_overlay(route.device)).then_some(route.mtu as i32)
}

/// The action, or why there is none: [`TIME_IS_OVER`], or the MTU that the packet exceeds.
#[inline(never)]
fn pass_on<const L3: usize>(ctx: &TcContext, packet: &Packet, value: &FlowValue) -> i32 {
    action(value.service, try_pass_on::<L3>(ctx, packet, value))
}

#[inline(always)]
fn try_pass_on<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
) -> Result<i32, DropReason> {
    // Without an Ethernet header the kernel cannot redirect to a neighbour. Such devices get no
    // connections of this kind, but their answers may come in there.
    if L3 == 0 {
        return Err(DropReason::NoRoute);
    }
    // The kernel routes before it changes the source.
    let mut routed = value.to;
    (routed.src, routed.src_port) = (packet.key.src, packet.key.src_port);
    let mut route = Route::none();
    let size = size(ctx, packet).ok_or(DropReason::RewriteFailed)?;
    if let Some(mtu) = route_of(ctx, packet, &routed, size, &mut route) {
        return Ok(mtu);
    }
    if route.device == 0 {
        return Err(DropReason::NoRoute);
    }
    if packet.life <= 1 {
        return Ok(TIME_IS_OVER);
    }
    rewrite(ctx, packet, value, 1).ok_or(DropReason::RewriteFailed)?;
    Ok(route::redirect(&mut route))
}

/// As [`forward_error`] for an error of this node.
#[inline(always)]
pub(crate) fn forward_own_error<const L3: usize>(
    ctx: &TcContext,
    error: &IcmpError,
) -> Result<i32, DropReason> {
    route::take_off(ctx.skb.skb);
    forward_error::<L3>(ctx, error)
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
) -> Result<i32, DropReason> {
    if L3 == 0 {
        return Err(DropReason::NoRoute);
    }
    let mut route = Route::none();
    route::find(ctx.skb.skb, &error.to, 0, &mut route);
    if route.device == 0 || error.outer.life <= 1 {
        return Err(DropReason::NoRoute);
    }
    error.rewrite::<L3>(ctx, 1).ok_or(DropReason::RewriteFailed)?;
    Ok(route::redirect(&mut route))
}

/// Bytes of the largest IP packet that leaves for this one: of a segment, where the hardware or the
/// kernel cuts it up.
#[inline(always)]
fn size(ctx: &TcContext, packet: &Packet) -> Option<u32> {
    let segment = segment_size(ctx);
    if segment == 0 {
        return Some(ctx.len() - packet.l3 as u32);
    }
    if packet.is_sctp() {
        // Cut between its chunks (GSO_BY_FRAGS): the kernel does not say how large they are.
        return Some(0);
    }
    let header = if packet.is_udp() {
        UDP_LEN as u32
    } else {
        u32::from(*at::<u8>(ctx, packet.l4 + 12)? >> 4) * 4
    };
    Some((packet.l4 - packet.l3) as u32 + header + segment)
}
