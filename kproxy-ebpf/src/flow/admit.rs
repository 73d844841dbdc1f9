//! Opening packets without a flow: who is admitted gets one.

use aya_ebpf::programs::TcContext;
use kproxy_common::{
    config::config_flags,
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::{FlowValue, flow_flags, state::is_over},
    service::Word,
};

use super::{
    filter, open, opener, table,
    track::{self, Belongs},
    unassured,
};
use crate::{
    maps::CONFIG,
    packet::Packet,
    service::pick,
    skb, stats,
    verdict::{Kind, Verdict},
};

/// Whether flows are opened by programs that come after these ([`config_flags::LEAVING`]).
#[inline(always)]
fn is_leaving() -> bool {
    CONFIG.get(0).is_some_and(|config| config.flags & config_flags::LEAVING != 0)
}

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
    if let Some(value) = found {
        match track::continues_flow(packet, value) {
            Belongs::Yes => return Ok(value),
            Belongs::No => return Err(Verdict::PASS),
            // This node's stack ends by a RST what the backend holds, whether the client exists or not; a
            // client that does dials again at once, since 5.7 (commit 9603d47bad46).
            Belongs::Challenges => {
                return if skb::copy_to_stack(ctx) { Ok(value) } else { Err(Verdict::PASS) };
            }
            Belongs::Opens => end(packet, value),
        }
    }
    // Without a flow only an opening packet is ours: connections that kube-proxy opened live on.
    if !packet.opens() || is_leaving() {
        return Err(Verdict::PASS);
    }
    let mut verdict = dial(packet);
    if verdict.is(Kind::Admit) {
        verdict = admit::<L3, OPENER>(ctx, packet, verdict.service());
    }
    if !verdict.is(Kind::Admit) {
        return Err(verdict);
    }
    if OPENER == opener::OUTSIDE
        && L3 != 0
        && let Some(verdict) = open::clear_port::<L3>(ctx, packet)
    {
        return Err(verdict);
    }
    table::find(&packet.key, packet.now)
        .ok_or_else(|| Verdict::drop(verdict.service(), DropReason::BadMap))
}

/// Ends the flow of a forward entry in whose place a new one is opened, which may be refused. Answers
/// of UDP under way go on, and a port that is another connection's stays taken.
#[inline(never)]
pub(crate) fn end(packet: &Packet, forward: &FlowValue) {
    if packet.is_udp() || forward.flags & flow_flags::COLLIDES != 0 {
        table::forget_forward(&packet.key, forward);
    } else {
        table::forget(&packet.key, forward);
    }
}

/// Opens a flow to a backend of this service; [`NO_SERVICE`]: to where the packet goes already.
#[inline(never)]
fn admit<const L3: usize, const OPENER: u8>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
) -> Verdict {
    let slot = unassured::take();
    let mut opened = open_once::<L3, OPENER>(ctx, packet, service, slot);
    // Whoever has the table full, the oldest that may give way does.
    if opened == Err(DropReason::FlowTableFull) && unassured::make_room() {
        opened = open_once::<L3, OPENER>(ctx, packet, service, slot);
    }
    match opened {
        Ok(()) => {
            unassured::set(slot, &packet.key);
            stats::count_connection(service);
            Verdict::admit(service)
        }
        Err(reason) => Verdict::turn_away(service, reason),
    }
}

#[inline(always)]
fn open_once<const L3: usize, const OPENER: u8>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
    slot: u32,
) -> Result<(), DropReason> {
    if service == NO_SERVICE {
        return open::direct::<OPENER>(packet, slot);
    }
    let word = pick::word(service).ok_or(DropReason::BadMap)?;
    open::open::<L3, OPENER>(ctx, packet, service, Word::unpack(word), slot)
}

/// Whether a connection past every frontend, straight to a backend, has the addresses and ports of a
/// flow towards it: its answers would be taken for the flow's. One that is over ends for it.
#[inline(never)]
pub(crate) fn collides(packet: &Packet) -> bool {
    let key = &packet.key;
    if !filter::has_flows_to(&key.src) {
        return false;
    }
    let reverse_key = key.reversed();
    let Some(reverse) = table::find(&reverse_key, packet.now) else { return false };
    if reverse.flags & flow_flags::REVERSE == 0 {
        return false;
    }
    if is_over(reverse.state) {
        table::forget(&reverse_key, reverse);
        return false;
    }
    true
}
