//! The node's own processes, where no hook gives their sockets a backend: all with `--socket-lb none`,
//! otherwise those of SCTP.
//!
//! A request is translated where it leaves: at an uplink, or at the loopback device for an address of
//! this node. Its answer is translated where it comes in, and handed to the stack as if the frontend
//! had sent it. Neither passes rp_filter or the check for martians on the way: by the loopback device
//! packets come with their route (docs/decisions/0013-packets-of-the-node.md).

use aya_ebpf::{bindings::TC_ACT_SHOT, macros::classifier, programs::TcContext};
use kproxy_common::{
    config::config_flags,
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::{FlowValue, flow_flags},
    service::frontend_flags,
};

use super::{
    begun::{self, turned_away},
    ingress::goes_on,
};
use crate::{
    NEXT, action, flow,
    forward::{self, forward_own_error},
    fragments,
    icmp::IcmpError,
    lookup::{self, Lookup},
    maps::CONFIG,
    packet::{self, Packet},
    refuse::{self, Back},
    route, sources, stats,
};

/// Flags of the entry of requests and of answers.
pub(super) const REQUEST: u16 = flow_flags::NODE;
pub(super) const ANSWER: u16 = flow_flags::NODE | flow_flags::REVERSE;

/// Whether packets of this protocol are translated for the node's processes.
#[inline(always)]
pub(super) fn is_served(packet: &Packet) -> bool {
    packet.is_sctp()
        || CONFIG.get(0).is_some_and(|config| config.flags & config_flags::NODE_PACKETS != 0)
}

/// A packet of a process of this node: of an open flow, or one that opens. Answers only by the loopback
/// device (`LO`). `ours`: whether it is translated here.
#[inline(always)]
pub(super) fn translate<const L3: usize, const LO: bool>(
    ctx: &TcContext,
    packet: &Packet,
    found: Option<&'static mut FlowValue>,
    ours: &mut bool,
) -> i32 {
    let back = if LO { Back::Stay } else { Back::In };
    let found = found.and_then(|value| goes_on(packet, value).then_some(value));
    let value = match found {
        Some(value) => value,
        None => {
            if !packet.opens() {
                return NEXT;
            }
            let begun = begun::begin::<L3, false, true>(ctx, packet, dial(packet));
            let service = begun as u32;
            match begun & begun::ALL {
                begun::FLOW => {}
                begun::REFUSED => return refuse::refuse::<L3>(ctx, packet, service, back),
                begun::DROPPED => return TC_ACT_SHOT as i32,
                _ => return NEXT,
            }
            let Some(value) = flow::find(&packet.key) else {
                return action(service, Err(DropReason::BadMap));
            };
            value
        }
    };
    stats::count_packet(value.service, ctx.len());
    *ours = true;
    forward::forward_own::<L3>(ctx, packet, value, back)
}

/// Whether a frontend is dialled, and may be. The node counts as inside the cluster.
#[inline(never)]
fn dial(packet: &Packet) -> u64 {
    let key = &packet.key;
    match lookup::frontend(&key.dst.of_node(), key.dst_port, key.proto) {
        Lookup::Frontend(frontend) => {
            let service = frontend.internal;
            // LBR-03: the kernel's choice for an address of the node is that address.
            let is_node = key.src == key.dst && frontend.flags & frontend_flags::NODE_ALLOWED != 0;
            if is_node || sources::allows(&frontend, &key.src) {
                begun::ALLOWED | u64::from(service)
            } else {
                turned_away(service, DropReason::SourceNotAllowed)
            }
        }
        Lookup::UnknownPort => turned_away(NO_SERVICE, DropReason::UnknownPort),
        Lookup::NotOurs if lookup::is_free_service_address(&key.dst) => {
            turned_away(NO_SERVICE, DropReason::FreeServiceAddress)
        }
        Lookup::NotOurs => {
            // A packet that this program has sent on is seen here once more, and its flow lives.
            flow::end_stale(key, flow_flags::REVERSE | flow_flags::OVER);
            begun::NOTHING
        }
    }
}

/// Sends a request that leaves by an uplink back to this node, whose address the backend has. The mark
/// tells it from a packet of somebody who pretends to be this node.
#[inline(always)]
pub(crate) fn turn(ctx: &TcContext) -> Option<i32> {
    route::mark(ctx.skb.skb);
    refuse::send_back::<14>(ctx, Back::In)
}

/// What becomes of a packet that has been translated where it came in: its entry's `flags` say.
/// Without an Ethernet header it cannot be handed over.
#[inline(always)]
pub(super) fn take<const L3: usize>(ctx: &TcContext, flags: u16) -> i32 {
    if flags & flow_flags::DIRECT != 0 || L3 == 0 { NEXT } else { route::hand_over(ctx.skb.skb) }
}

/// An ICMP error that a process of this node, or its stack, sends.
#[inline(never)]
fn error(ctx: &TcContext) -> i32 {
    let Some(error) = IcmpError::parse::<14>(ctx) else { return NEXT };
    let Some(value) = error.flow() else { return NEXT };
    let (flags, service) = (value.flags & flow_flags::KINDS, value.service);
    let result = match flags {
        REQUEST => forward_own_error::<14>(ctx, error),
        ANSWER => error.rewrite::<14>(ctx, 0).map(|()| NEXT).ok_or(DropReason::RewriteFailed),
        _ => return NEXT,
    };
    stats::count_packet(service, ctx.len());
    action(service, result)
}

/// Loopback egress: this node to its own addresses, and answers of backends with such an address.
#[inline(always)]
fn to_itself(ctx: &TcContext) -> i32 {
    // What was handed over is translated already.
    if !packet::is_own(ctx)
        || packet::destination::<14>(ctx)
            .is_none_or(|to| lookup::is_ruled_out(&to.of_node()) && !flow::has_flows_to(&to))
    {
        return NEXT;
    }
    let mut packet = Packet::empty(true);
    if packet.parse::<14>(ctx).is_none() {
        return if packet.is_later() { fragments::early::<14>(ctx, &packet) } else { error(ctx) };
    }
    let found = flow::find_for(&packet);
    let is_ours = match &found {
        Some(value) => value.flags & flow_flags::NODE != 0,
        None => is_served(&packet),
    };
    let mut ours = false;
    let action = if is_ours { translate::<14, true>(ctx, &packet, found, &mut ours) } else { NEXT };
    if packet.is_first() {
        fragments::remember(ctx, &packet, ours);
    }
    action
}

#[classifier]
pub fn kp_node_egress(ctx: TcContext) -> i32 {
    to_itself(&ctx)
}
