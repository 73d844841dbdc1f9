//! The flow table. Only this file touches the map.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use kproxy_common::{
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue, flow_flags, flow_state, state::LONE},
};

use super::{assured, filter};
use crate::{
    maps::{CONFIG, FLOWS},
    packet::Packet,
    service::load,
    stats,
};

/// What the map says when the key is there (include/uapi/asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// The entry with this key, though its time may be up.
#[inline(always)]
pub(super) fn any(key: &FlowKey) -> Option<&'static mut FlowValue> {
    // SAFETY: a live element; fields are words, and a lost update costs at most a later time-out.
    FLOWS.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}

/// The live entry with this key. One whose time is up is removed: it counts as free at the moment at
/// which it is found, whether anybody sweeps or not.
#[inline(always)]
pub(crate) fn find(key: &FlowKey, now: u32) -> Option<&'static mut FlowValue> {
    let value = any(key)?;
    // Once a second for each entry, for the sake of the others' speed.
    if value.last_seen != now && is_forgotten(key, value, now) { None } else { Some(value) }
}

/// As [`find`] for any packet: most are spared the hash by the flow filter.
#[inline(always)]
pub(crate) fn find_for(packet: &Packet) -> Option<&'static mut FlowValue> {
    if packet.has_flows || filter::has_flows_to(&packet.key.dst) {
        find(&packet.key, packet.now)
    } else {
        None
    }
}

/// Whether there is an entry for the packet, though its time may be up.
#[inline(never)]
pub(crate) fn has_any(packet: &Packet) -> bool {
    is_there(&packet.key)
}

/// The other entry of a connection.
#[inline(always)]
pub(super) fn other(key: &FlowKey, value: &FlowValue) -> Option<&'static mut FlowValue> {
    any(&value.to.reversed()).filter(|other| other.to.is_reverse_of(key))
}

/// Seconds since `then`; the clock of another CPU may be a moment ahead.
#[inline(always)]
const fn age(then: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age as i32 >= 0 { age } else { 0 }
}

/// Seconds without a packet after which a connection in this state is forgotten.
#[inline(always)]
pub(super) fn timeout(state: u8) -> u32 {
    CONFIG
        .get(0)
        .and_then(|config| config.timeouts.get(usize::from(state & 15)).copied())
        .unwrap_or(LONE)
}

/// Removes the connection of this entry if its time is up, and says so.
#[inline(never)]
fn is_forgotten(key: &FlowKey, value: &FlowValue, now: u32) -> bool {
    let timeout = timeout(value.state);
    let idle = age(value.last_seen, now);
    if idle < timeout && idle < LONE {
        return false;
    }
    let is_over = match other(key, value) {
        Some(other) => idle >= timeout && age(other.last_seen, now) >= timeout,
        None => idle >= LONE,
    };
    if is_over {
        if value.state == flow_state::OPENING {
            stats::count_failure(value.service);
        }
        forget(key, value);
    }
    is_over
}

/// Inserts an entry where none is. `false`: there is one.
#[inline(always)]
pub(super) fn insert(key: &FlowKey, value: &FlowValue) -> Result<bool, DropReason> {
    match FLOWS.insert(key, value, u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(true),
        Err(EEXIST) => Ok(false),
        Err(_) => Err(DropReason::FlowTableFull),
    }
}

/// Inserts an entry, in place of one that is there.
#[inline(always)]
pub(super) fn replace(key: &FlowKey, value: &FlowValue) -> Result<(), DropReason> {
    FLOWS.insert(key, value, u64::from(BPF_ANY)).map_err(|_full| DropReason::FlowTableFull)
}

/// Removes one entry; none is there is as good.
#[inline(always)]
pub(super) fn remove(key: &FlowKey) {
    let _gone = FLOWS.remove(key);
}

/// The connection of this entry is none of the open and assured ones any more.
#[inline(always)]
fn count_out(key: &FlowKey, value: &FlowValue) {
    if value.flags & flow_flags::COUNTED != 0 {
        let is_reverse = value.flags & flow_flags::REVERSE != 0;
        let (addr, port) =
            if is_reverse { (&key.src, key.src_port) } else { (&value.to.dst, value.to.dst_port) };
        load::ended(addr, port);
    }
    if value.flags & flow_flags::ASSURED != 0 {
        assured::leave();
    }
}

/// Removes both entries of a connection, given one of them. It counts no more.
#[inline(never)]
pub(crate) fn forget(key: &FlowKey, value: &FlowValue) {
    // A copy: the entry is gone before the other one.
    let other_key = value.to.reversed();
    count_out(key, value);
    remove(key);
    if any(&other_key).is_some_and(|other| other.to.is_reverse_of(key)) {
        remove(&other_key);
    }
}

/// Removes the forward entry of a connection, whose answers under way still find theirs. It counts no
/// more.
#[inline(never)]
pub(super) fn forget_forward(key: &FlowKey, forward: &FlowValue) {
    if let Some(reverse) = other(key, forward) {
        reverse.flags &= !(flow_flags::COUNTED | flow_flags::ASSURED);
    }
    count_out(key, forward);
    remove(key);
}

/// Whether there is an entry with this key, though its time may be up.
#[inline(always)]
pub(crate) fn is_there(key: &FlowKey) -> bool {
    any(key).is_some()
}
