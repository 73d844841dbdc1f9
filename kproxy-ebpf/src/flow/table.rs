//! The flow table. Only this file touches the map.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use kproxy_common::{
    drop_reason::DropReason,
    flow::{FlowKey, FlowValue},
};

use super::filter;
use crate::{maps::FLOWS, packet::Packet};

/// What the map says when the key is there (include/uapi/asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// The live entry of this packet, if there is one.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<&'static mut FlowValue> {
    // SAFETY: a live element; fields are words, and a lost update costs at most a later time-out.
    FLOWS.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}

/// As [`find`] for any packet: most are spared the hash by the flow filter.
#[inline(always)]
pub(crate) fn find_for(packet: &Packet) -> Option<&'static mut FlowValue> {
    if filter::has_flows_to(&packet.key.dst) { find(&packet.key) } else { None }
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

/// Removes an entry; none is there is as good.
#[inline(always)]
pub(super) fn remove(key: &FlowKey) {
    let _gone = FLOWS.remove(key);
}
