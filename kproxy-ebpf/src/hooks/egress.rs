//! Egress of uplinks and pod-facing ports: answers of backends leave with the frontend as their
//! source. Packets of the node's own processes are node.rs's.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::flow_flags,
    service::{Word, frontend_flags},
};

use super::node;
use crate::{
    NEXT, action, flow,
    forward::forward_own_error,
    fragments,
    icmp::IcmpError,
    lookup::{self, Lookup},
    packet::{self, Packet},
    pick,
    refuse::{self, Back},
    rewrite::rewrite,
    sources, stats,
};

/// A packet still addressed to a ClusterIP, or to a load-balancer address with source ranges, when
/// it leaves the node was not translated: the socket path left it alone because it must be dropped
/// (VER-04, LBR-02) or could not be refused. It must not reach the network, where it would loop.
#[inline(always)]
fn untranslated<const L3: usize>(ctx: &TcContext, packet: &Packet, is_own: bool) -> i32 {
    let key = &packet.key;
    let (service, reason) = match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) if frontend.flags & frontend_flags::CLUSTER_IP != 0 => {
            let service = frontend.internal;
            let Some(word) = pick::word(service) else {
                return action(service, Err(DropReason::BadMap));
            };
            // Where backends exist the sender is one that no hook of ours sees, and none of our
            // business here.
            let Some(reason) = pick::refusal(Word::unpack(word)) else { return NEXT };
            (service, reason)
        }
        // Left alone by the socket path because its sender is not, or not surely, allowed.
        Lookup::Frontend(frontend) if sources::is_restricted(&frontend) => {
            (frontend.internal, DropReason::SourceNotAllowed)
        }
        Lookup::UnknownPort => (NO_SERVICE, DropReason::UnknownPort),
        Lookup::NotOurs if lookup::is_free_service_address(&key.dst) => {
            (NO_SERVICE, DropReason::FreeServiceAddress)
        }
        Lookup::Frontend(_) | Lookup::NotOurs => return NEXT,
    };
    let dropped = action(service, Err(reason));
    let is_refused = matches!(reason, DropReason::NoBackend | DropReason::UnknownPort);
    // Before 5.18 a hook cannot refuse.
    if is_own && is_refused {
        refuse::refuse::<L3>(ctx, packet, service, Back::In)
    } else {
        dropped
    }
}

/// An ICMP error of the backend, or of this node's stack, about a request.
#[inline(never)]
fn error<const L3: usize>(ctx: &TcContext) -> i32 {
    let Some(error) = IcmpError::parse::<L3>(ctx) else { return NEXT };
    let Some(value) = error.flow() else { return NEXT };
    let service = value.service;
    let result = match value.flags & flow_flags::KINDS {
        flow_flags::REVERSE => {
            error.rewrite::<L3>(ctx, 0).map(|()| NEXT).ok_or(DropReason::RewriteFailed)
        }
        node::REQUEST if packet::is_own(ctx) => forward_own_error::<L3>(ctx, error),
        _ => return NEXT,
    };
    stats::count_packet(service, ctx.len());
    action(service, result)
}

#[inline(always)]
fn egress<const L3: usize, const POD: bool>(ctx: &TcContext) -> i32 {
    if POD && !flow::has_pod_flows() {
        return NEXT;
    }
    if flow::is_strange::<L3>(ctx) {
        return NEXT;
    }
    let mut packet = Packet::empty(true);
    if packet.parse::<L3>(ctx).is_none() {
        return if packet.is_later() {
            fragments::early::<L3>(ctx, &packet)
        } else {
            error::<L3>(ctx)
        };
    }
    let mut ours = false;
    let action = translate::<L3, POD>(ctx, &packet, &mut ours);
    if packet.is_first() {
        fragments::remember(ctx, &packet, ours);
    }
    action
}

/// `ours`: whether the packet belongs to a flow that is translated here.
#[inline(always)]
fn translate<const L3: usize, const POD: bool>(
    ctx: &TcContext,
    packet: &Packet,
    ours: &mut bool,
) -> i32 {
    let found = flow::find_for(packet);
    if !POD {
        let is_own = packet::is_own(ctx);
        let is_request =
            found.as_ref().is_some_and(|value| value.flags & flow_flags::KINDS == node::REQUEST);
        let opens = found.is_none() && packet.opens();
        if is_own && (is_request || opens && node::is_served(packet)) {
            return node::translate::<L3, false>(ctx, packet, found, ours);
        }
        if opens {
            return untranslated::<L3>(ctx, packet, is_own);
        }
    }
    let Some(value) = found else { return NEXT };
    if value.flags & flow_flags::KINDS != flow_flags::REVERSE {
        return NEXT;
    }
    value.flags |= flow_flags::REPLIED;
    flow::touch(value, packet);
    *ours = true;
    stats::count_packet(value.service, ctx.len());
    let done = rewrite(ctx, packet, value, 0);
    action(value.service, done.map(|()| NEXT).ok_or(DropReason::RewriteFailed))
}

#[classifier]
pub fn kp_egress(ctx: TcContext) -> i32 {
    egress::<14, false>(&ctx)
}

#[classifier]
pub fn kp_egress_l3(ctx: TcContext) -> i32 {
    egress::<0, false>(&ctx)
}

#[classifier]
pub fn kp_pod_egress(ctx: TcContext) -> i32 {
    egress::<14, true>(&ctx)
}
