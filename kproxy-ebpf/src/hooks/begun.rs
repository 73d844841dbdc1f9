//! Opening packets: what has become of them.

use aya_ebpf::programs::TcContext;
use kproxy_common::{drop_reason::DropReason, service::Word};

use crate::{flow, packet::Packet, pick, stats};

// With the service in the lower half: a number, because the kernel refuses the type information of a
// function that returns more.
pub(super) const NOTHING: u64 = 0;
pub(super) const ALLOWED: u64 = 1 << 32;
pub(super) const FLOW: u64 = 2 << 32;
pub(super) const REFUSED: u64 = 3 << 32;
pub(super) const DROPPED: u64 = 4 << 32;
pub(super) const ALL: u64 = !(u32::MAX as u64);

/// Counts a refusal or drop.
#[inline(always)]
pub(super) fn turned_away(service: u32, reason: DropReason) -> u64 {
    stats::count_drop(service, reason);
    let what = match reason {
        DropReason::NoBackend | DropReason::UnknownPort => REFUSED,
        _ => DROPPED,
    };
    what | u64::from(service)
}

/// An opening packet without a flow, of which `dialled` says whether a frontend is dialled, by
/// somebody who may. The two come one after the other, so that neither needs much of the stack, and
/// packets of flows that are open need little.
#[inline(always)]
pub(super) fn begin<const L3: usize, const POD: bool, const NODE: bool>(
    ctx: &TcContext,
    packet: &Packet,
    dialled: u64,
) -> u64 {
    if dialled & ALL == ALLOWED {
        open::<L3, POD, NODE>(ctx, packet, dialled as u32)
    } else {
        dialled
    }
}

/// Opens a flow.
#[inline(never)]
fn open<const L3: usize, const POD: bool, const NODE: bool>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
) -> u64 {
    let result = pick::word(service)
        .ok_or(DropReason::BadMap)
        .and_then(|word| flow::open::<L3, POD, NODE>(ctx, packet, service, Word::unpack(word)));
    match result {
        Ok(()) => {
            stats::count_connection(service);
            FLOW | u64::from(service)
        }
        Err(reason) => turned_away(service, reason),
    }
}
