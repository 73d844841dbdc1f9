//! Opening packets without a flow: who is admitted gets one.

use aya_ebpf::programs::TcContext;
use kproxy_common::{drop_reason::DropReason, flow::FlowValue, service::Word};

use super::{open, table, track};
use crate::{
    packet::Packet,
    service::pick,
    stats,
    verdict::{Kind, Verdict},
};

/// The flow of a packet: the one that was found for it, or a new one. Else what becomes of the packet.
///
/// `dial`: whether a frontend is dialled by somebody who may ([`Kind::Admit`]), or what becomes of the
/// packet. It comes before the opening and not around it, so that neither needs much of the stack; packets
/// of flows that are open need little.
#[inline(always)]
pub(crate) fn flow_of<const L3: usize, const OPENER: u8>(
    ctx: &TcContext,
    packet: &Packet,
    found: Option<&'static mut FlowValue>,
    dial: impl FnOnce(&Packet) -> Verdict,
) -> Result<&'static mut FlowValue, Verdict> {
    if let Some(value) = found
        && track::continues_flow(packet, value)
    {
        return Ok(value);
    }
    // Without a flow only an opening packet is ours: connections that kube-proxy opened live on.
    if !packet.opens() {
        return Err(Verdict::PASS);
    }
    let mut verdict = dial(packet);
    if verdict.is(Kind::Admit) {
        verdict = admit::<L3, OPENER>(ctx, packet, verdict.service());
    }
    if !verdict.is(Kind::Admit) {
        return Err(verdict);
    }
    table::find(&packet.key).ok_or_else(|| Verdict::drop(verdict.service(), DropReason::BadMap))
}

/// Opens a flow.
#[inline(never)]
fn admit<const L3: usize, const OPENER: u8>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
) -> Verdict {
    let opened = pick::word(service)
        .ok_or(DropReason::BadMap)
        .and_then(|word| open::open::<L3, OPENER>(ctx, packet, service, Word::unpack(word)));
    match opened {
        Ok(()) => {
            stats::count_connection(service);
            Verdict::admit(service)
        }
        Err(reason) => Verdict::turn_away(service, reason),
    }
}
