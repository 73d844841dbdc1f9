//! Uplink egress: answers of backends leave with the frontend as their source.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::flow_flags,
    service::{Word, frontend_flags},
};

use crate::{
    Verdict, flow,
    lookup::{self, Lookup},
    packet::Packet,
    pick,
    rewrite::{End, rewrite},
    sources, stats,
};

/// A packet still addressed to a ClusterIP, or to a load-balancer address with source ranges, when
/// it leaves the node was not translated: the socket path left it alone because it must be dropped
/// (VER-04, LBR-02) or could not be refused. It must not reach the network, where it would loop.
#[inline(always)]
fn untranslated(packet: &Packet) -> Result<Verdict, (u32, DropReason)> {
    if !packet.opens() {
        return Ok(Verdict::Pass);
    }
    let key = &packet.key;
    match lookup::frontend(&key.dst, key.dst_port, key.proto) {
        Lookup::Frontend(frontend) if frontend.flags & frontend_flags::CLUSTER_IP != 0 => {
            let service = frontend.internal;
            let word = pick::word(service).ok_or((service, DropReason::BadMap))?;
            match pick::refusal(Word::unpack(word)) {
                Some(reason) => Err((service, reason)),
                // Backends exist: a sender that no hook of ours sees, and none of our business here.
                None => Ok(Verdict::Pass),
            }
        }
        // Left alone by the socket path because its sender is not, or not surely, allowed.
        Lookup::Frontend(frontend) if sources::is_restricted(&frontend) => {
            Err((frontend.internal, DropReason::SourceNotAllowed))
        }
        Lookup::UnknownPort => Err((NO_SERVICE, DropReason::UnknownPort)),
        Lookup::NotOurs if lookup::is_free_service_address(&key.dst) => {
            Err((NO_SERVICE, DropReason::FreeServiceAddress))
        }
        Lookup::Frontend(_) | Lookup::NotOurs => Ok(Verdict::Pass),
    }
}

#[inline(always)]
fn try_egress<const L3: usize>(ctx: &TcContext) -> Result<Verdict, (u32, DropReason)> {
    let Some(packet) = Packet::parse::<L3>(ctx) else { return Ok(Verdict::Pass) };
    let Some(value) = flow::find_for(&packet) else { return untranslated(&packet) };
    if value.flags & flow_flags::REVERSE == 0 {
        return Ok(Verdict::Pass);
    }
    value.flags |= flow_flags::REPLIED;
    flow::touch(value, &packet);
    let (addr, port, service) = (value.addr, value.port, value.service);
    stats::count_packet(service, ctx.len());
    rewrite(ctx, &packet, End::Source, &addr, port).ok_or((service, DropReason::RewriteFailed))?;
    Ok(Verdict::Pass)
}

#[inline(always)]
fn egress<const L3: usize>(ctx: &TcContext) -> i32 {
    let verdict = try_egress::<L3>(ctx).unwrap_or_else(|(service, reason)| {
        stats::count_drop(service, reason);
        Verdict::Drop
    });
    verdict.action()
}

#[classifier]
pub fn kp_egress(ctx: TcContext) -> i32 {
    egress::<14>(&ctx)
}

#[classifier]
pub fn kp_egress_l3(ctx: TcContext) -> i32 {
    egress::<0>(&ctx)
}
