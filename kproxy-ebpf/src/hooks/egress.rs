//! Egress of uplinks and pod-facing ports: answers of backends leave with the frontend as their
//! source.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::flow_flags,
    service::{Word, frontend_flags},
};

use crate::{
    NEXT, action, flow, fragments,
    icmp::IcmpError,
    lookup::{self, Lookup},
    packet::Packet,
    pick,
    rewrite::rewrite,
    sources, stats,
};

/// A packet still addressed to a ClusterIP, or to a load-balancer address with source ranges, when
/// it leaves the node was not translated: the socket path left it alone because it must be dropped
/// (VER-04, LBR-02) or could not be refused. It must not reach the network, where it would loop.
#[inline(always)]
fn untranslated(packet: &Packet) -> i32 {
    if !packet.opens() {
        return NEXT;
    }
    let key = &packet.key;
    match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) if frontend.flags & frontend_flags::CLUSTER_IP != 0 => {
            let service = frontend.internal;
            let Some(word) = pick::word(service) else {
                return action(service, Err(DropReason::BadMap));
            };
            // Where backends exist the sender is one that no hook of ours sees, and none of our
            // business here.
            let refusal = pick::refusal(Word::unpack(word));
            action(service, refusal.map_or(Ok(NEXT), Err))
        }
        // Left alone by the socket path because its sender is not, or not surely, allowed.
        Lookup::Frontend(frontend) if sources::is_restricted(&frontend) => {
            action(frontend.internal, Err(DropReason::SourceNotAllowed))
        }
        Lookup::UnknownPort => action(NO_SERVICE, Err(DropReason::UnknownPort)),
        Lookup::NotOurs if lookup::is_free_service_address(&key.dst) => {
            action(NO_SERVICE, Err(DropReason::FreeServiceAddress))
        }
        Lookup::Frontend(_) | Lookup::NotOurs => NEXT,
    }
}

/// An ICMP error of the backend, or of this node's stack, about a request.
#[inline(never)]
fn error<const L3: usize>(ctx: &TcContext) -> i32 {
    let Some(error) = IcmpError::parse::<L3>(ctx) else { return NEXT };
    let Some(value) = error.flow() else { return NEXT };
    if value.flags & flow_flags::KINDS != flow_flags::REVERSE {
        return NEXT;
    }
    stats::count_packet(value.service, ctx.len());
    let done = error.rewrite::<L3>(ctx, 0);
    action(value.service, done.map(|()| NEXT).ok_or(DropReason::RewriteFailed))
}

#[inline(always)]
fn egress<const L3: usize, const POD: bool>(ctx: &TcContext) -> i32 {
    if POD && !flow::has_pod_flows() {
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
    let action = translate::<POD>(ctx, &packet, &mut ours);
    if packet.is_first() {
        fragments::remember(ctx, &packet, ours);
    }
    action
}

/// `ours`: whether the packet belongs to a flow that is translated here.
#[inline(always)]
fn translate<const POD: bool>(ctx: &TcContext, packet: &Packet, ours: &mut bool) -> i32 {
    let Some(value) = flow::find_for(packet) else {
        return if POD { NEXT } else { untranslated(packet) };
    };
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
