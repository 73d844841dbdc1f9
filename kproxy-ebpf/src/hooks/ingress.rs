//! Ingress of uplinks and pod-facing ports: packets for frontends that come from outside this node or
//! from a pod whose sockets nobody sees, and answers whose source port the programs gave out.
//!
//! For a backend on this node only the destination changes; then the kernel routes, so netfilter,
//! NetworkPolicy engines and rp_filter see what they saw with kube-proxy. A backend elsewhere needs
//! the node as source: the programs change both ends and pass the packet on themselves, or netfilter
//! masquerades what carries the mark.

use aya_ebpf::{bindings::TC_ACT_SHOT, macros::classifier, programs::TcContext};
use kproxy_common::{
    abi::MARK_MASQUERADE,
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::{FlowValue, flow_flags},
    net::Addr,
};

use super::{
    begun::{self, turned_away},
    node,
};
use crate::{
    NEXT, action, flow,
    forward::{forward, forward_error},
    fragments,
    icmp::IcmpError,
    lookup::{self, Lookup},
    maps::CONFIG,
    packet::{self, PACKET_HOST, Packet},
    refuse::{self, Back},
    rewrite::rewrite,
    route, sources, stats,
};

/// Seconds of silence after which netfilter may have forgotten a UDP connection: it must be asked
/// again to masquerade. `nf_conntrack_udp_timeout` is 30 unless an administrator shortens it.
const NETFILTER_MEMORY: u32 = 2;

/// Whether the sender counts as a pod (MSQ-08): pods of other nodes are "inside".
#[inline(always)]
fn is_pod(addr: &Addr) -> bool {
    match CONFIG.get(0) {
        Some(config) => config.cluster[0].contains(addr) || config.cluster[1].contains(addr),
        None => false,
    }
}

/// Whether a frontend is dialled, and by somebody who may.
#[inline(never)]
fn dial<const POD: bool>(packet: &Packet) -> u64 {
    let key = &packet.key;
    match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) => {
            let inside = POD || is_pod(&key.src);
            let service = if inside { frontend.internal } else { frontend.external };
            if sources::allows(&frontend, &key.src) {
                begun::ALLOWED | u64::from(service)
            } else {
                turned_away(service, DropReason::SourceNotAllowed)
            }
        }
        Lookup::UnknownPort => turned_away(NO_SERVICE, DropReason::UnknownPort),
        Lookup::NotOurs => {
            flow::end_stale(key, flow_flags::REVERSE);
            begun::NOTHING
        }
    }
}

/// Notes a packet of a flow that is open already.
#[inline(always)]
fn note(packet: &Packet, value: &mut FlowValue) {
    if value.flags & flow_flags::REVERSE != 0 {
        value.flags |= flow_flags::REPLIED;
    } else if value.flags & flow_flags::MASQUERADE != 0 && packet.is_udp() {
        note_answer(value);
    }
    flow::touch(value, packet);
}

/// Brings the forward entry of a masqueraded UDP flow in step with what netfilter knows: it remembers
/// the flow once it was answered, until the client rests. Out of line, to spare the caller's stack.
#[inline(never)]
fn note_answer(forward: &mut FlowValue) {
    let rested = flow::now().wrapping_sub(forward.last_seen) >= NETFILTER_MEMORY;
    if !rested && forward.flags & flow_flags::REPLIED != 0 {
        return;
    }
    let reverse = flow::find(&forward.to.reversed());
    if rested {
        forward.flags &= !flow_flags::REPLIED;
        if let Some(reverse) = reverse {
            reverse.flags &= !flow_flags::REPLIED;
        }
    } else if reverse.is_some_and(|reverse| reverse.flags & flow_flags::REPLIED != 0) {
        forward.flags |= flow_flags::REPLIED;
    }
}

/// Whether the packet belongs to the flow that was found for it, which then takes note of it. A SYN
/// that opens a new connection does not.
#[inline(always)]
pub(super) fn goes_on(packet: &Packet, value: &mut FlowValue) -> bool {
    let reverse = value.flags & flow_flags::REVERSE != 0;
    if packet.is_syn() && !reverse && flow::end_if_over(&packet.key, value) {
        return false;
    }
    note(packet, value);
    true
}

/// Whether the packets of a flow come in at the other kind of device only. One that comes in here has
/// a forged source, and redirected at once it would pass the stack's checks of sources.
#[inline(always)]
const fn is_misplaced<const POD: bool>(flags: u16) -> bool {
    if flags & flow_flags::NODE != 0 {
        return POD == (flags & flow_flags::AWAY != 0);
    }
    let elsewhere = if POD { flow_flags::SNAT } else { flow_flags::HAIRPIN };
    flags & elsewhere != 0
}

/// An ICMP error about a request that this node passed on, or about an answer.
#[inline(never)]
fn error<const L3: usize, const POD: bool>(ctx: &TcContext) -> i32 {
    let Some(error) = IcmpError::parse::<L3>(ctx) else { return NEXT };
    let Some(value) = error.flow() else { return NEXT };
    let flags = value.flags & flow_flags::KINDS;
    let is_left = flags == flow_flags::REVERSE || flags == node::REQUEST;
    if is_left || is_misplaced::<POD>(value.flags) {
        return NEXT;
    }
    stats::count_packet(value.service, ctx.len());
    let result = if flags & flow_flags::SNAT != 0 {
        forward_error::<L3>(ctx, error)
    } else {
        let done = error.rewrite::<L3>(ctx, 0).and_then(|()| match flags {
            node::ANSWER => Some(node::take::<L3>(ctx, value.flags)),
            _ if flags & flow_flags::HAIRPIN != 0 => refuse::send_back::<L3>(ctx, Back::Out),
            _ => Some(NEXT),
        });
        done.ok_or(DropReason::RewriteFailed)
    };
    action(value.service, result)
}

/// `POD`: the packet comes from a pod of this node. A port of a bridge sees packets for the bridge as
/// those of others.
#[inline(always)]
fn ingress<const L3: usize, const POD: bool>(ctx: &TcContext) -> i32 {
    // SAFETY: a plain read of a live context.
    // A device in promiscuous mode shows packets for others too.
    if L3 != 0 && !POD && unsafe { (*ctx.skb.skb).pkt_type } != PACKET_HOST {
        return NEXT;
    }
    // Most pods' sockets were given a backend before there was a packet.
    if POD
        && !flow::has_flows_from_pods()
        && packet::destination::<L3>(ctx).is_some_and(|to| lookup::is_ruled_out(&to))
    {
        return NEXT;
    }
    if flow::is_strange::<L3>(ctx) {
        return NEXT;
    }
    let mut packet = Packet::empty(false);
    if packet.parse::<L3>(ctx).is_none() {
        return if packet.is_later() {
            fragments::early::<L3>(ctx, &packet)
        } else {
            error::<L3, POD>(ctx)
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
    let mut found = None;
    if let Some(value) = flow::find_for(packet) {
        let kind = value.flags & flow_flags::KINDS;
        let is_left = if kind == node::REQUEST {
            !route::was_marked(ctx.skb.skb)
        } else {
            is_misplaced::<POD>(value.flags)
        };
        if is_left {
            return NEXT;
        }
        if kind != flow_flags::REVERSE {
            found = goes_on(packet, value).then_some(value);
        } else if !packet.is_syn() {
            // An answer, which is translated where it leaves.
            return NEXT;
        }
    }
    let value = match found {
        Some(value) => value,
        None => {
            // Without a flow only an opening packet is ours: connections that kube-proxy opened live
            // on.
            if !packet.opens() {
                return NEXT;
            }
            let begun = begun::begin::<L3, POD, false>(ctx, packet, dial::<POD>(packet));
            let service = begun as u32;
            match begun & begun::ALL {
                begun::FLOW => {}
                begun::REFUSED => return refuse::refuse::<L3>(ctx, packet, service, Back::Out),
                begun::DROPPED => return TC_ACT_SHOT as i32,
                _ => return NEXT,
            }
            let Some(value) = flow::find(&packet.key) else {
                return action(service, Err(DropReason::BadMap));
            };
            value
        }
    };
    let service = value.service;
    stats::count_packet(service, ctx.len());
    *ours = true;
    if value.flags & flow_flags::SNAT != 0 {
        return forward::<L3>(ctx, packet, value);
    }
    // Netfilter only asks its NAT rules about the first packet of a connection; a mark on later
    // ones would leak to the outer packet of an overlay.
    let first =
        if packet.is_udp() { value.flags & flow_flags::REPLIED == 0 } else { packet.is_syn() };
    if value.flags & flow_flags::MASQUERADE != 0 && first {
        // SAFETY: a field of a live context that tc programs may write.
        unsafe { (*ctx.skb.skb).mark |= MARK_MASQUERADE };
    }
    let mut done = rewrite(ctx, packet, value, 0).map(|()| NEXT);
    if POD && value.flags & flow_flags::HAIRPIN != 0 {
        done = done.and_then(|_| refuse::send_back::<L3>(ctx, Back::Out));
    }
    if value.flags & flow_flags::NODE != 0 {
        done = done.map(|_| node::take::<L3>(ctx, value.flags));
    }
    action(service, done.ok_or(DropReason::RewriteFailed))
}

#[classifier]
pub fn kp_ingress(ctx: TcContext) -> i32 {
    ingress::<14, false>(&ctx)
}

#[classifier]
pub fn kp_ingress_l3(ctx: TcContext) -> i32 {
    ingress::<0, false>(&ctx)
}

#[classifier]
pub fn kp_pod_ingress(ctx: TcContext) -> i32 {
    ingress::<14, true>(&ctx)
}
