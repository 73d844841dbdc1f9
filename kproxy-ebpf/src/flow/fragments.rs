//! Fragments: only the first has ports. What it said is kept for the others. One that comes before
//! it goes to the daemon as a copy, which comes in again once the first one is there.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_skb_load_bytes,
    programs::TcContext,
};
use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::FlowKey,
    fragment::{COPIES_A_SECOND, COPY_BYTES, First, MEMORY, Note, Record, note_flags, state},
    net::{Port, proto},
};

use super::filter::has_flows_to;
use crate::{
    kernel::{nanoseconds, now, plus},
    maps::{EARLY, FRAGMENTS},
    packet::Packet,
    service::lookup,
    stats::{self, Limited},
    verdict::Verdict,
};

/// The key of a packet's fragments: its identification stands where the ports are.
#[inline(always)]
fn key_of(packet: &Packet) -> FlowKey {
    let mut key = packet.key;
    key.set_rest(Port(packet.id as u16), Port((packet.id >> 16) as u16), packet.key.proto);
    key.pad[0] = packet.egress.into();
    key
}

/// What is known of the packet with this key, unless it is long gone.
#[inline(always)]
fn find(key: &FlowKey) -> Option<First> {
    // SAFETY: copied at once; an evicted element would hold the ports of another packet, which is
    // then lost as it would be without them.
    let first = unsafe { FRAGMENTS.get(key) }.copied()?;
    // The clock of another CPU may be a second ahead.
    let age = now().wrapping_sub(first.seen) as i32;
    (age <= MEMORY as i32).then_some(first)
}

/// Gives a later fragment the ports of its first one. `false`: they are not known, or it is none of
/// ours.
#[inline(never)]
pub(crate) fn recall(packet: &mut Packet) -> bool {
    let Some(first) = find(&key_of(packet)) else { return false };
    (packet.key.src_port, packet.key.dst_port) = (first.ports[0], first.ports[1]);
    first.state == state::OURS
}

/// Whether fragments to this address may be ours, and what came first is kept in mind. Where packets
/// leave only answers are translated, and those go to whom flows send to.
#[inline(always)]
fn may_be_ours(packet: &Packet) -> bool {
    let to = &packet.key.dst;
    has_flows_to(to) || !packet.egress && !lookup::is_ruled_out(to)
}

/// Keeps the ports of a first fragment, and whether it is `ours`: was translated here. Others are kept
/// so that what follows them is not taken for early.
#[inline(never)]
pub(crate) fn remember(ctx: &TcContext, packet: &Packet, ours: bool) {
    if !ours && !may_be_ours(packet) {
        return;
    }
    let key = key_of(packet);
    let first = First {
        ports: [packet.key.src_port, packet.key.dst_port],
        state: if ours { state::OURS } else { state::STRANGER },
        seen: now(),
    };
    // Of two fragments that come at once, on two CPUs, one sees the other's element.
    if FRAGMENTS.insert(&key, &first, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    let is_awaited = find(&key).is_some_and(|before| before.state == state::AWAITED);
    // Without memory for it the other fragments are lost.
    FRAGMENTS.insert(&key, &first, u64::from(BPF_ANY)).ok();
    if ours && is_awaited {
        tell_first(ctx, &key);
    }
}

/// A later fragment without known ports: the daemon gets a copy and holds it until the first one has
/// come.
#[inline(never)]
pub(crate) fn hold<const L3: usize>(ctx: &TcContext, packet: &Packet) -> Verdict {
    let is_ours = matches!(packet.key.proto, proto::TCP | proto::UDP | proto::SCTP);
    if !is_ours || !may_be_ours(packet) {
        return Verdict::PASS;
    }
    // Any datagram for a ClusterIP is translated or refused. A connection may be netfilter's.
    let is_certain =
        !packet.egress && packet.is_udp() && lookup::is_service_address(&packet.key.dst);
    let key = key_of(packet);
    let found = find(&key).map(|first| first.state);
    if found == Some(state::STRANGER) {
        return if is_certain {
            Verdict::drop(NO_SERVICE, DropReason::FragmentAlone)
        } else {
            Verdict::PASS
        };
    }
    if !stats::may(Limited::Copies, COPIES_A_SECOND) || !copy::<L3>(ctx, packet, &key, is_certain) {
        return lost(is_certain);
    }
    // Not before the copy: word of the first one, which whoever sees this sends, must come after it.
    let awaited = First { ports: [Port(0); 2], state: state::AWAITED, seen: now() };
    if found.is_none()
        && FRAGMENTS.insert(&key, &awaited, u64::from(BPF_NOEXIST)).is_err()
        && find(&key).is_none()
    {
        // One of the same number, long gone.
        FRAGMENTS.insert(&key, &awaited, u64::from(BPF_ANY)).ok();
    }
    if find(&key).is_some_and(|first| first.state == state::OURS) {
        // It came on another CPU, just now.
        tell_first(ctx, &key);
    }
    if is_certain { Verdict::HELD } else { Verdict::PASS }
}

/// Sends a copy of the packet. `false`: it is too large, or the daemon does not keep up.
#[inline(always)]
fn copy<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    key: &FlowKey,
    is_certain: bool,
) -> bool {
    let mut flags = if packet.egress { note_flags::EGRESS } else { 0 };
    if L3 == 0 {
        flags |= note_flags::NO_ETHERNET;
    }
    if is_certain {
        flags |= note_flags::ONLY_COPY;
    }
    let len = ctx.len();
    if plus::<0>(len.into()) <= COPY_BYTES[0] as u64 {
        tell::<{ COPY_BYTES[0] }>(ctx, key, flags, len)
    } else {
        tell::<{ COPY_BYTES[1] }>(ctx, key, flags, len)
    }
}

/// Sends word that the first fragment has been translated.
#[inline(always)]
fn tell_first(ctx: &TcContext, key: &FlowKey) {
    // A daemon that does not keep up has no copy either.
    let _told = tell::<0>(ctx, key, note_flags::FIRST, 0);
}

/// No copy is made. What is certainly ours must not reach the network, where it would loop.
#[inline(always)]
fn lost(is_certain: bool) -> Verdict {
    let dropped = Verdict::drop(NO_SERVICE, DropReason::FragmentLimit);
    if is_certain { dropped } else { Verdict::PASS }
}

/// Sends a note with a copy of `len` bytes. `false`: it does not fit, or the daemon does not keep up.
#[inline(always)]
fn tell<const ROOM: usize>(ctx: &TcContext, key: &FlowKey, flags: u32, len: u32) -> bool {
    let has_copy = ROOM != 0;
    let rest = plus::<-1>(len.into());
    if has_copy && rest >= ROOM as u64 {
        return false;
    }
    let Some(mut entry) = EARLY.reserve::<Record<ROOM>>(0) else { return false };
    let skb = ctx.skb.skb;
    let record = entry.as_mut_ptr();
    // SAFETY: a record of our own until it is submitted; plain reads of a live context.
    unsafe {
        (*record).note = Note {
            time: nanoseconds(),
            key: *key,
            device: (*skb).ifindex,
            mark: (*skb).mark,
            flags,
            len,
        };
    }
    // SAFETY: the record has room for so many bytes, and the helper checks those of the packet.
    let is_copied = !has_copy
        || unsafe {
            bpf_skb_load_bytes(
                skb.cast(),
                0,
                (&raw mut (*record).copy).cast(),
                plus::<1>(rest) as u32,
            ) == 0
        };
    if is_copied {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
    is_copied
}
