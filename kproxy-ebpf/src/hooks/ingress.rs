//! Uplink ingress: packets for frontends that come from outside this node.
//!
//! Only addresses and ports of the destination change; then the kernel routes, so netfilter,
//! NetworkPolicy engines and rp_filter see what they saw with kube-proxy. A backend elsewhere
//! needs the node as source: netfilter masquerades what carries the mark.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    abi::{MARK_MASQUERADE, MARK_REJECT},
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue, flow_flags},
    net::Addr,
    service::{FrontendValue, Word},
};

use crate::{
    Verdict, flow,
    lookup::{self, Lookup},
    maps::CONFIG,
    packet::Packet,
    pick,
    rewrite::{End, rewrite},
    sources, stats,
};

/// Seconds of silence after which netfilter may have forgotten a UDP connection: it must be asked
/// again to masquerade. `nf_conntrack_udp_timeout` is 30 unless an administrator shortens it.
const NETFILTER_MEMORY: u32 = 2;

#[inline(always)]
fn set_mark(ctx: &TcContext, bit: u32) {
    // SAFETY: a field of a live context that tc programs may write.
    unsafe { (*ctx.skb.skb).mark |= bit };
}

/// Whether the sender counts as a pod (MSQ-08): pods of other nodes are "inside".
#[inline(always)]
fn is_pod(addr: &Addr) -> bool {
    match CONFIG.get(0) {
        Some(config) => config.cluster[0].contains(addr) || config.cluster[1].contains(addr),
        None => false,
    }
}

/// A new connection to a frontend. `None`: the packet passes untouched.
#[inline(always)]
fn open(
    ctx: &TcContext,
    packet: &Packet,
    frontend: &FrontendValue,
) -> Result<Option<FlowValue>, (u32, DropReason)> {
    let service = if is_pod(&packet.key.src) { frontend.internal } else { frontend.external };
    if !sources::allows(frontend, &packet.key.src) {
        return Err((service, DropReason::SourceNotAllowed));
    }
    let word = pick::word(service).ok_or((service, DropReason::BadMap))?;
    match flow::open(packet, service, Word::unpack(word)) {
        Ok(value) => {
            stats::count_connection(service);
            Ok(Some(value))
        }
        Err(DropReason::NoBackend) => {
            // The stack sends the ICMP error: a rule of ours rejects what carries the mark.
            stats::count_drop(service, DropReason::NoBackend);
            set_mark(ctx, MARK_REJECT);
            Ok(None)
        }
        Err(reason) => Err((service, reason)),
    }
}

/// Brings the forward entry of a masqueraded UDP flow in step with what netfilter knows: it remembers
/// the flow once it was answered, until the client rests. Out of line, to spare the caller's stack.
#[inline(never)]
fn note_answer(key: &FlowKey, forward: &mut FlowValue) {
    let rested = flow::now().wrapping_sub(forward.last_seen) >= NETFILTER_MEMORY;
    if !rested && forward.flags & flow_flags::REPLIED != 0 {
        return;
    }
    let reverse = flow::find(&key.reverse_for(forward.addr, forward.port));
    if rested {
        forward.flags &= !flow_flags::REPLIED;
        if let Some(reverse) = reverse {
            reverse.flags &= !flow_flags::REPLIED;
        }
    } else if reverse.is_some_and(|reverse| reverse.flags & flow_flags::REPLIED != 0) {
        forward.flags |= flow_flags::REPLIED;
    }
}

/// The flow that the packet belongs to, opened if need be.
#[inline(always)]
fn flow_of(ctx: &TcContext, packet: &Packet) -> Result<Option<FlowValue>, (u32, DropReason)> {
    if let Some(value) = flow::find_for(packet) {
        if value.flags & flow_flags::REVERSE != 0 {
            return Ok(None);
        }
        if !packet.is_syn() || !flow::end_if_over(&packet.key, value) {
            if value.flags & flow_flags::MASQUERADE != 0 && packet.is_udp() {
                note_answer(&packet.key, value);
            }
            flow::touch(value, packet);
            return Ok(Some(*value));
        }
    }
    // Without a flow only an opening packet is ours: connections that kube-proxy opened live on.
    if !packet.opens() {
        return Ok(None);
    }
    match lookup::frontend(&packet.key.dst, packet.key.dst_port, packet.key.proto) {
        Lookup::Frontend(frontend) => open(ctx, packet, &frontend),
        Lookup::UnknownPort => {
            stats::count_drop(NO_SERVICE, DropReason::UnknownPort);
            set_mark(ctx, MARK_REJECT);
            Ok(None)
        }
        Lookup::NotOurs => {
            if packet.is_syn() {
                flow::end_stale(&packet.key);
            }
            Ok(None)
        }
    }
}

#[inline(always)]
fn try_ingress<const L3: usize>(ctx: &TcContext) -> Result<Verdict, (u32, DropReason)> {
    let Some(packet) = Packet::parse::<L3>(ctx) else { return Ok(Verdict::Pass) };
    let Some(flow) = flow_of(ctx, &packet)? else { return Ok(Verdict::Pass) };
    stats::count_packet(flow.service, ctx.len());
    // Netfilter only asks its NAT rules about the first packet of a connection; a mark on later
    // ones would leak to the outer packet of an overlay.
    let first =
        if packet.is_udp() { flow.flags & flow_flags::REPLIED == 0 } else { packet.is_syn() };
    if flow.flags & flow_flags::MASQUERADE != 0 && first {
        set_mark(ctx, MARK_MASQUERADE);
    }
    rewrite(ctx, &packet, End::Destination, &flow.addr, flow.port)
        .ok_or((flow.service, DropReason::RewriteFailed))?;
    Ok(Verdict::Pass)
}

#[inline(always)]
fn ingress<const L3: usize>(ctx: &TcContext) -> i32 {
    let verdict = try_ingress::<L3>(ctx).unwrap_or_else(|(service, reason)| {
        stats::count_drop(service, reason);
        Verdict::Drop
    });
    verdict.action()
}

#[classifier]
pub fn kp_ingress(ctx: TcContext) -> i32 {
    ingress::<14>(&ctx)
}

#[classifier]
pub fn kp_ingress_l3(ctx: TcContext) -> i32 {
    ingress::<0>(&ctx)
}
