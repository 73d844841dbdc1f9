//! Egress of the loopback device: packets of this node's processes to its own addresses, and answers of
//! backends with such an address. Needed where no hook gives their sockets a backend: all with
//! `--socket-lb none`, otherwise those of SCTP and those that are bound to a loopback address.
//!
//! A request is translated where it leaves: at an uplink (egress.rs), or here for an address of this node.
//! Its answer is translated where it comes in, and handed to the stack as if the frontend had sent it.
//! Neither passes rp_filter or the check for martians on the way: by the loopback device packets come with
//! their route (docs/decisions/0013-packets-of-the-node.md).

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    drop_reason::DropReason,
    flow::{FlowValue, flow_flags},
    trace::trace_hook,
};

use super::tc::{self, Hook};
use crate::{
    flow::{
        filter,
        kind::{Place, at_loopback},
        table,
    },
    packet::{Packet, early, headers::ethernet, icmp_error::IcmpError},
    path::{forward::forward_own_error, redirect::Back},
    service::lookup,
    skb,
    verdict::Verdict,
};

struct Loopback;

impl Hook for Loopback {
    const EGRESS: bool = true;
    const HOOK: u32 = trace_hook::NODE_EGRESS;
    const BACK: Back = Back::Stay;

    #[inline(always)]
    fn packet<const L3: usize>(ctx: &TcContext, packet: &Packet, ours: &mut bool) -> Verdict {
        let found = table::find_for(packet);
        let place = match &found {
            Some(value) => at_loopback(value.flags),
            None if tc::serves_processes(packet) || may_be_of_node_port(packet) => Place::Here,
            None => Place::Elsewhere,
        };
        match place {
            Place::Here => tc::own_packet::<L3>(ctx, packet, found, ours, Self::BACK),
            Place::Untranslated => tc::pass_on(packet, found),
            Place::HereIfOwn | Place::Elsewhere | Place::Misplaced => Verdict::PASS,
        }
    }

    /// That a process of this node, or its stack, sends.
    #[inline(always)]
    fn error<const L3: usize>(
        ctx: &TcContext,
        error: &IcmpError,
        value: &FlowValue,
    ) -> Option<Result<Verdict, DropReason>> {
        if at_loopback(value.flags) != Place::Here {
            return None;
        }
        Some(if value.flags & flow_flags::REVERSE == 0 {
            forward_own_error::<L3>(ctx, error)
        } else {
            let done = error.rewrite::<L3>(ctx, 0).map(|()| Verdict::PASS);
            done.ok_or(DropReason::RewriteFailed)
        })
    }
}

/// Whether a packet may open a connection to a NodePort that its socket was given no backend for, or be a datagram
/// from one, which is remembered.
#[inline(always)]
fn may_be_of_node_port(packet: &Packet) -> bool {
    let Packet { key, .. } = packet;
    packet.opens()
        && (lookup::may_be_node_port(key.dst_port, key.proto)
            || packet.is_udp() && lookup::may_be_node_port(key.src_port, key.proto))
}

#[classifier]
fn kp_node_egress(ctx: TcContext) -> i32 {
    const L3: usize = ethernet::LEN;
    // What was handed over is translated already.
    let is_ruled_out = !skb::is_own(&ctx)
        || early::destination::<L3>(&ctx)
            .is_none_or(|to| lookup::is_ruled_out(&to.of_node()) && !filter::has_flows_to(&to));
    if is_ruled_out {
        return Verdict::PASS.action();
    }
    tc::run::<L3, Loopback>(&ctx)
}
