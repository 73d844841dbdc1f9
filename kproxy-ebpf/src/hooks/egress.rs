//! Egress of uplinks and pod-facing ports: answers of backends leave with the frontend as their
//! source. Packets of the node's own processes that leave by an uplink are translated as those that leave
//! by the loopback device are (node.rs).

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    config::Config,
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::FlowValue,
    net::Addr,
    service::{Word, frontend_flags},
    trace::trace_hook,
};

use super::tc::{self, Hook};
use crate::{
    flow::{
        filter,
        kind::{Place, at_egress},
        open, table,
        track::{self, Belongs},
    },
    maps::CONFIG,
    packet::{
        Packet,
        headers::{ethernet, tcp},
        icmp_error::IcmpError,
        rewrite::rewrite,
    },
    path::{forward::forward_own_error, redirect::Back},
    service::{
        lookup::{self, Lookup},
        pick, source_ranges,
    },
    skb,
    verdict::Verdict,
};

/// `POD`: the packet goes to a pod of this node.
struct Egress<const POD: bool>;

impl<const POD: bool> Hook for Egress<POD> {
    const EGRESS: bool = true;
    const HOOK: u32 = if POD { trace_hook::POD_EGRESS } else { trace_hook::EGRESS };
    const BACK: Back = Back::In;

    #[inline(always)]
    fn passes(ctx: &TcContext, to: &Addr) -> bool {
        !filter::has_flows_to(to) && (POD || skb::is_own(ctx) || lookup::is_ruled_out(to))
    }

    #[inline(always)]
    fn packet<const L3: usize>(ctx: &TcContext, packet: &Packet, ours: &mut bool) -> Verdict {
        let found = table::find_for(packet);
        if !POD {
            let is_own = skb::is_own(ctx);
            let opens = found.is_none() && packet.opens();
            let is_request =
                found.as_ref().is_some_and(|value| at_egress(value.flags) == Place::HereIfOwn);
            let mut is_served = is_own && is_request;
            if opens {
                let Some(config) = CONFIG.get(0) else { return Verdict::PASS };
                // Once for all that asks: most of what leaves is no service.
                let dials = !lookup::is_ruled_out(&packet.key.dst);
                is_served = is_own && (dials || tc::serves_all(packet, config));
                if !is_served {
                    open::remember_own(packet);
                    return if dials {
                        untranslated(packet, config)
                    } else {
                        to_nobody(packet, config)
                    };
                }
            }
            if is_served {
                return tc::own_packet::<L3>(ctx, packet, found, ours, Self::BACK);
            }
        }
        let Some(value) = found else {
            if !POD {
                return of_nobody(packet, skb::is_own(ctx));
            }
            if packet.opens() && skb::is_own(ctx) {
                open::remember_own(packet);
            }
            return Verdict::PASS;
        };
        match at_egress(value.flags) {
            Place::Here => {}
            Place::Untranslated => return tc::pass_on(packet, Some(value)),
            Place::HereIfOwn | Place::Elsewhere | Place::Misplaced => return Verdict::PASS,
        }
        if track::continues_flow(packet, value) == Belongs::No {
            return Verdict::PASS;
        }
        tc::note(ctx, value, ours);
        match rewrite::<L3>(ctx, packet, value, 0) {
            Some(()) => Verdict::PASS,
            None => Verdict::drop(value.service, DropReason::RewriteFailed),
        }
    }

    /// Of the backend, or of this node's stack, about a request.
    #[inline(always)]
    fn error<const L3: usize>(
        ctx: &TcContext,
        error: &IcmpError,
        value: &FlowValue,
    ) -> Option<Result<Verdict, DropReason>> {
        match at_egress(value.flags) {
            Place::Here => {
                let done = error.rewrite::<L3>(ctx, 0).map(|()| Verdict::PASS);
                Some(done.ok_or(DropReason::RewriteFailed))
            }
            Place::HereIfOwn if skb::is_own(ctx) => Some(forward_own_error::<L3>(ctx, error)),
            Place::HereIfOwn | Place::Untranslated | Place::Elsewhere | Place::Misplaced => None,
        }
    }
}

/// A packet of a pod still addressed to a ClusterIP, or to a load-balancer address with source ranges, when
/// it leaves the node was not translated: the socket path left it alone because it must be dropped
/// (VER-04, LBR-02) or could not be refused. It must not reach the network, where it would loop.
#[inline(always)]
fn untranslated(packet: &Packet, config: &Config) -> Verdict {
    let key = &packet.key;
    let (service, reason) = match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) if frontend.flags & frontend_flags::CLUSTER_IP != 0 => {
            let service = frontend.internal;
            let Some(word) = pick::word(service) else {
                return Verdict::drop(service, DropReason::BadMap);
            };
            // Where backends exist the sender is one that no hook of ours sees, and none of our
            // business here.
            let Some(reason) = pick::refusal(Word::unpack(word)) else { return Verdict::PASS };
            (service, reason)
        }
        // Left alone by the socket path because its sender is not, or not surely, allowed.
        Lookup::Frontend(frontend) if source_ranges::is_restricted(&frontend) => {
            (frontend.internal, DropReason::SourceNotAllowed)
        }
        Lookup::UnknownPort => (NO_SERVICE, DropReason::UnknownPort),
        Lookup::NotOurs => return to_nobody(packet, config),
        Lookup::Frontend(_) => return Verdict::PASS,
    };
    Verdict::drop(service, reason)
}

/// A packet to no frontend leaves the node but for a free address of a service range (VER-16).
#[inline(always)]
fn to_nobody(packet: &Packet, config: &Config) -> Verdict {
    if config.is_free_service_address(&packet.key.dst) {
        Verdict::drop(NO_SERVICE, DropReason::FreeServiceAddress)
    } else {
        Verdict::PASS
    }
}

/// TCP of no flow that leaves as it came, to a service address: netfilter, which translates what kube-proxy
/// has opened, has done so by now. So nobody here knows the connection, and whoever gets the packet sends it
/// back here. Its sender is told (RFC 9293 section 3.10.7.1).
#[inline(always)]
fn of_nobody(packet: &Packet, is_own: bool) -> Verdict {
    if is_own || !packet.is_tcp() || packet.is_later() {
        return Verdict::PASS;
    }
    let key = &packet.key;
    let (service, reason) = match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) if frontend.flags & frontend_flags::NODE_PORT == 0 => {
            (frontend.internal, DropReason::NoFlow)
        }
        Lookup::UnknownPort => (NO_SERVICE, DropReason::UnknownPort),
        Lookup::Frontend(_) | Lookup::NotOurs => return Verdict::PASS,
    };
    if packet.segment.flags & tcp::RST != 0 {
        Verdict::drop(service, reason)
    } else {
        Verdict::turn_away(service, reason)
    }
}

#[inline(always)]
fn egress<const L3: usize, const POD: bool>(ctx: &TcContext) -> i32 {
    if POD && !filter::has_pod_flows() {
        return Verdict::PASS.action();
    }
    tc::run::<L3, Egress<POD>>(ctx)
}

#[classifier]
fn kp_egress(ctx: TcContext) -> i32 {
    egress::<{ ethernet::LEN }, false>(&ctx)
}

#[classifier]
fn kp_egress_l3(ctx: TcContext) -> i32 {
    egress::<0, false>(&ctx)
}

#[classifier]
fn kp_pod_egress(ctx: TcContext) -> i32 {
    egress::<{ ethernet::LEN }, true>(&ctx)
}
