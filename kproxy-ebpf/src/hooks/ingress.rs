//! Ingress of uplinks and pod-facing ports: packets for frontends that come from outside this node or
//! from a pod whose sockets nobody sees, and answers whose source port the programs gave out.
//!
//! For a backend on this node only the destination changes; then the kernel routes, so netfilter,
//! NetworkPolicy engines and rp_filter see what they saw with kube-proxy. A backend elsewhere needs
//! the node as source: the programs change both ends and pass the packet on themselves, or netfilter
//! masquerades what carries the mark.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::{FlowValue, flow_flags},
    trace::trace_hook,
};

use super::tc::{self, Hook};
use crate::{
    flow::{
        admit::{self, flow_of},
        filter,
        kind::{Place, at_ingress},
        opener, table,
        track::{self, Belongs},
    },
    packet::{Packet, early, headers::ethernet, icmp_error::IcmpError, rewrite::rewrite},
    path::{
        forward::{forward, forward_error},
        redirect::{Back, deliver, send_back},
    },
    service::{
        lookup::{self, Lookup},
        source_ranges,
    },
    skb, udp_sockets,
    verdict::{Kind, Verdict},
};

/// `POD`: the packet comes from a pod of this node.
struct Ingress<const POD: bool>;

impl<const POD: bool> Hook for Ingress<POD> {
    const EGRESS: bool = false;
    const HOOK: u32 = if POD { trace_hook::POD_INGRESS } else { trace_hook::INGRESS };
    const BACK: Back = Back::Out;

    #[inline(always)]
    fn packet<const L3: usize>(ctx: &TcContext, packet: &Packet, ours: &mut bool) -> Verdict {
        let mut found = table::find_for(packet);
        if let Some(value) = found.as_deref_mut() {
            match at_ingress::<POD>(value.flags) {
                Place::Here => {}
                Place::HereIfOwn if skb::clear_mark(ctx) => {}
                Place::Untranslated => {
                    // Of kube-proxy's UDP, left to netfilter as long as its backend serves.
                    if track::continues_flow(packet, value) != Belongs::Opens {
                        return Verdict::PASS;
                    }
                    admit::end(packet, value);
                    found = None;
                }
                Place::Elsewhere if packet.is_syn() => found = None,
                Place::HereIfOwn | Place::Elsewhere | Place::Misplaced => return Verdict::PASS,
            }
        }
        let flow = if POD {
            flow_of::<L3, { opener::POD }>(ctx, packet, found, |packet| dial_of_pod(ctx, packet))
        } else {
            flow_of::<L3, { opener::OUTSIDE }>(ctx, packet, found, dial::<POD>)
        };
        match flow {
            Ok(value) => {
                tc::note(ctx, value, ours);
                translate::<L3, POD>(ctx, packet, value)
            }
            Err(verdict) => verdict,
        }
    }

    /// About a request that this node passed on, or about an answer.
    #[inline(always)]
    fn error<const L3: usize>(
        ctx: &TcContext,
        error: &IcmpError,
        value: &FlowValue,
    ) -> Option<Result<Verdict, DropReason>> {
        let flags = value.flags;
        if at_ingress::<POD>(flags) != Place::Here {
            return None;
        }
        if flags & flow_flags::SNAT != 0 {
            return Some(forward_error::<L3>(ctx, error));
        }
        let done = error.rewrite::<L3>(ctx, 0).and_then(|()| {
            if flags & flow_flags::NODE != 0 {
                Some(deliver::<L3>(ctx, flags))
            } else if flags & flow_flags::HAIRPIN != 0 {
                send_back::<L3>(ctx, Back::Out)
            } else {
                Some(Verdict::PASS)
            }
        });
        Some(done.ok_or(DropReason::RewriteFailed))
    }
}

/// Translates a packet of this flow.
#[inline(always)]
fn translate<const L3: usize, const POD: bool>(
    ctx: &TcContext,
    packet: &Packet,
    value: &FlowValue,
) -> Verdict {
    if value.flags & flow_flags::SNAT != 0 {
        return forward::<L3>(ctx, packet, value);
    }
    // Netfilter only asks its NAT rules about the first packet of a connection; a mark on later
    // ones would leak to the outer packet of an overlay.
    let first =
        if packet.is_udp() { value.flags & flow_flags::REPLIED == 0 } else { packet.is_syn() };
    if value.flags & flow_flags::MASQUERADE != 0 && first {
        skb::set_mark(ctx);
    }
    let mut done = rewrite::<L3>(ctx, packet, value, 0).map(|()| Verdict::PASS);
    if POD && value.flags & flow_flags::HAIRPIN != 0 {
        done = done.and_then(|_| send_back::<L3>(ctx, Back::Out));
    }
    if value.flags & flow_flags::NODE != 0 {
        done = done.map(|_| deliver::<L3>(ctx, value.flags));
    }
    done.unwrap_or_else(|| Verdict::drop(value.service, DropReason::RewriteFailed))
}

/// Whether a frontend is dialled, and by somebody who may.
#[inline(never)]
fn dial<const POD: bool>(packet: &Packet) -> Verdict {
    let key = &packet.key;
    match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) => {
            // Who comes in by an uplink is outside, a pod of another node too: its answer would go past
            // this node if the endpoint was elsewhere and its address its own (VER-15).
            let service = if POD { frontend.internal } else { frontend.external };
            if source_ranges::allows(&frontend, &key.src) {
                Verdict::admit(service)
            } else {
                Verdict::drop(service, DropReason::SourceNotAllowed)
            }
        }
        Lookup::UnknownPort => Verdict::turn_away(NO_SERVICE, DropReason::UnknownPort),
        Lookup::NotOurs => {
            if admit::collides(packet) {
                Verdict::admit(NO_SERVICE)
            } else {
                Verdict::PASS
            }
        }
    }
}

/// As [`dial`], of a pod whose sockets nobody sees, or that answers a process of this node: one that has
/// asked from a port that is a NodePort, too.
#[inline(always)]
fn dial_of_pod(ctx: &TcContext, packet: &Packet) -> Verdict {
    let verdict = dial::<true>(packet);
    let key = &packet.key;
    if packet.is_udp()
        && verdict.is(Kind::Admit)
        && lookup::is_node_address(&key.dst)
        // A socket that is not connected is remembered by what it sends (egress.rs), once pods' links have
        // the program for that. Before that they open no flow, and the datagram is for any socket.
        && udp_sockets::has_socket(ctx.skb.skb, key, !filter::answers_pods())
    {
        filter::note_pod_flows();
        return Verdict::PASS;
    }
    verdict
}

#[inline(always)]
fn ingress<const L3: usize, const POD: bool>(ctx: &TcContext) -> i32 {
    // A port of a bridge sees packets for the bridge as those of others.
    if L3 != 0 && !POD && !skb::is_for_host(ctx) {
        return Verdict::PASS.action();
    }
    // Most pods' sockets were given a backend before there was a packet.
    if POD
        && !filter::has_flows_from_pods()
        && early::destination::<L3>(ctx).is_some_and(|to| lookup::is_ruled_out(&to))
    {
        return Verdict::PASS.action();
    }
    tc::run::<L3, Ingress<POD>>(ctx)
}

#[classifier]
fn kp_ingress(ctx: TcContext) -> i32 {
    ingress::<{ ethernet::LEN }, false>(&ctx)
}

#[classifier]
fn kp_ingress_l3(ctx: TcContext) -> i32 {
    ingress::<0, false>(&ctx)
}

#[classifier]
fn kp_pod_ingress(ctx: TcContext) -> i32 {
    ingress::<{ ethernet::LEN }, true>(&ctx)
}
