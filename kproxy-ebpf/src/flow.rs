//! Connection entries: opening, finding a backend whose answers can be told apart, touching.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use kproxy_common::{
    affinity::client_kind,
    drop_reason::DropReason,
    filter,
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    net::Addr,
    service::{Slot, Word, slot_flags},
};

use crate::{
    maps::{FLOW_FILTER, FLOWS},
    packet::Packet,
    pick,
};

/// Backends tried before a collision of answers is given up on.
const COLLISION_TRIES: u32 = 4;

/// Seconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_ktime_get_ns() } / 1_000_000_000) as u32
}

/// The live entry of this packet, if there is one.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<&'static mut FlowValue> {
    // SAFETY: a live element; fields are words, and a lost update costs at most a later time-out.
    FLOWS.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}

/// As [`find`] for any packet: most are spared the hash by the flow filter.
#[inline(always)]
pub(crate) fn find_for(packet: &Packet) -> Option<&'static mut FlowValue> {
    if has_flows_to(&packet.key.dst) { find(&packet.key) } else { None }
}

#[inline(always)]
fn has_flows_to(addr: &Addr) -> bool {
    let (element, byte) = filter::flow_position(addr);
    FLOW_FILTER.get(element).is_none_or(|bytes| bytes[byte & 7] != 0)
}

/// Puts an address into the flow filter, before the first entry whose packets go there.
#[inline(always)]
fn note_flows_to(addr: &Addr) {
    let (element, byte) = filter::flow_position(addr);
    if let Some(bytes) = FLOW_FILTER.get_ptr_mut(element) {
        // SAFETY: a live element; every writer stores the same value.
        unsafe { (*bytes)[byte & 7] = 1 };
    }
}

/// Records that a packet of this direction has passed.
#[inline(always)]
pub(crate) fn touch(value: &mut FlowValue, packet: &Packet) {
    let now = now();
    if value.last_seen != now {
        value.last_seen = now;
    }
    if packet.is_rst() {
        value.flags |= flow_flags::RST;
    } else if packet.is_fin() {
        value.flags |= flow_flags::FIN;
    }
}

/// Ends the connection of a forward entry when an opening packet starts a new one on the same
/// addresses and ports: the old one is over, or it was never answered and the backends have changed
/// since (the retry goes to a live backend).
#[inline(always)]
pub(crate) fn end_if_over(key: &FlowKey, forward: &FlowValue) -> bool {
    let reverse_key = key.reverse_for(forward.addr, forward.port);
    let over = is_over(forward, &reverse_key);
    if over {
        let _ = FLOWS.remove(&reverse_key);
    }
    over
}

#[inline(always)]
fn is_over(forward: &FlowValue, reverse_key: &FlowKey) -> bool {
    let Some(reverse) = find(reverse_key) else { return true };
    let state = FlowState::of(forward, reverse);
    if state.is_over() {
        return true;
    }
    if state != FlowState::Opening {
        return false;
    }
    match pick::word(forward.service) {
        Some(packed) => Word::unpack(packed).generation != forward.generation,
        None => true,
    }
}

/// Opens a flow: picks a backend and inserts both entries.
#[inline(always)]
pub(crate) fn open(packet: &Packet, service: u32, word: Word) -> Result<FlowValue, DropReason> {
    note_flows_to(&packet.key.src);
    note_flows_to(&packet.key.dst);
    let mut affinity = pick::affinity(service);
    let mut tries = 0;
    while tries < COLLISION_TRIES {
        let slot = pick::backend(&packet.key.src, client_kind::ADDRESS, service, word, affinity)?;
        // A collision sends one connection elsewhere, the client keeps its backend.
        affinity = 0;
        let reverse = FlowValue {
            addr: packet.key.dst,
            port: packet.key.dst_port,
            flags: flow_flags::REVERSE,
            service,
            last_seen: now(),
            generation: word.generation,
            pad: 0,
        };
        let key = packet.key.reverse_for(slot.addr, slot.port);
        if claim_reverse(packet, &key, &reverse)? {
            return insert_forward(packet, service, word, &slot);
        }
        tries += 1;
    }
    Err(DropReason::FlowCollision)
}

/// Inserts the reverse entry. `false`: another live connection owns it.
///
/// Everything comes by pointers that go on to helpers: LLVM would pass the fields of other
/// structs in registers, of which a BPF function has five.
#[inline(never)]
fn claim_reverse(packet: &Packet, key: &FlowKey, value: &FlowValue) -> Result<bool, DropReason> {
    if FLOWS.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(true);
    }
    let Some(other) = find(key) else { return Err(DropReason::FlowTableFull) };
    let same = other.addr == value.addr && other.port == value.port;
    if !same {
        // Another frontend led this client port to this backend. Its answers could not be told
        // from ours while it lives.
        let forward_key = FlowKey { dst: other.addr, dst_port: other.port, ..packet.key };
        if let Some(forward) = find(&forward_key) {
            let elsewhere = forward.addr != key.src || forward.port != key.src_port;
            if !elsewhere && !FlowState::of(forward, other).is_over() {
                return Ok(false);
            }
            if !elsewhere {
                let _ = FLOWS.remove(&forward_key);
            }
        }
    }
    match FLOWS.insert(key, value, u64::from(BPF_ANY)) {
        Ok(()) => Ok(true),
        Err(_) => Err(DropReason::FlowTableFull),
    }
}

/// Inserts the forward entry; without room for it the reverse entry goes again.
#[inline(always)]
fn insert_forward(
    packet: &Packet,
    service: u32,
    word: Word,
    slot: &Slot,
) -> Result<FlowValue, DropReason> {
    let masquerade = if slot.flags & slot_flags::LOCAL == 0 { flow_flags::MASQUERADE } else { 0 };
    let value = FlowValue {
        addr: slot.addr,
        port: slot.port,
        flags: masquerade,
        service,
        last_seen: now(),
        generation: word.generation,
        pad: 0,
    };
    if FLOWS.insert(&packet.key, &value, u64::from(BPF_ANY)).is_err() {
        let _ = FLOWS.remove(&packet.key.reverse_for(slot.addr, slot.port));
        return Err(DropReason::FlowTableFull);
    }
    Ok(value)
}

/// Ends a flow whose answers would be mistaken for those of the direct connection that this SYN
/// opens (same client port, straight to the backend).
#[inline(never)]
pub(crate) fn end_stale(direct: &FlowKey) {
    if !has_flows_to(&direct.src) {
        return;
    }
    let reverse_key = direct.reverse_for(direct.dst, direct.dst_port);
    let Some(reverse) = find(&reverse_key) else { return };
    if reverse.flags & flow_flags::REVERSE == 0 {
        return;
    }
    let forward_key = FlowKey { dst: reverse.addr, dst_port: reverse.port, ..*direct };
    let _ = FLOWS.remove(&forward_key);
    let _ = FLOWS.remove(&reverse_key);
}
