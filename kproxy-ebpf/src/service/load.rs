//! Open connections of backends, counted only for services that pick by least connections.
//!
//! A flow counts from its opening until it is over or swept, a connected socket until it is closed.
//! What is lost on the way (a flow that is replaced, two CPUs at once) user space puts right.

use aya_ebpf::bindings::BPF_NOEXIST;
use kproxy_common::{
    config::config_flags,
    flow::{FlowValue, flow_flags},
    load::{LoadKey, counted},
    net::{Addr, Port},
    service::{Slot, service_flags},
    socket::SocketState,
};

use crate::{
    kernel::add_atomically,
    maps::{CONFIG, LOAD},
};

/// Whether the connections of a service with these [`super::pick::settings`] are counted.
#[inline(always)]
pub(crate) fn counts(settings: u64) -> bool {
    settings as u32 & service_flags::LEAST_CONNECTIONS != 0
}

/// The flag of the flows of such a service.
#[inline(always)]
pub(crate) fn flag(settings: u64) -> u16 {
    if counts(settings) { flow_flags::COUNTED } else { 0 }
}

/// Counts a new flow, given its forward entry.
#[inline(never)]
pub(crate) fn opened(forward: &FlowValue) {
    add(&forward.to.dst, forward.to.dst_port, counted::FLOWS, 1);
}

/// Counts a flow to this backend no more.
#[inline(never)]
pub(crate) fn ended(addr: &Addr, port: Port) {
    add(addr, port, counted::FLOWS, -1);
}

/// Counts a socket that has connected, if a program will see it close.
#[inline(never)]
pub(crate) fn joined(state: &mut SocketState) {
    if CONFIG.get(0).is_none_or(|config| config.flags & config_flags::COUNT_SOCKETS == 0) {
        return;
    }
    state.counted = 1;
    let peer = state.connected();
    add(&peer.backend, peer.backend_port, counted::SOCKETS, 1);
}

/// Counts a socket no more: it closes, or is connected otherwise.
#[inline(never)]
pub(crate) fn left(state: &mut SocketState) {
    state.counted = 0;
    let peer = state.connected();
    add(&peer.backend, peer.backend_port, counted::SOCKETS, -1);
}

#[inline(always)]
fn add(addr: &Addr, port: Port, path: u16, change: i64) {
    let key = LoadKey { addr: *addr, port, path };
    if find_and_add(&key, change) || change < 0 {
        return;
    }
    if LOAD.insert(&key, &change, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU was faster, or the map is full.
        find_and_add(&key, change);
    }
}

#[inline(always)]
fn find_and_add(key: &LoadKey, change: i64) -> bool {
    let Some(count) = LOAD.get_ptr_mut(key) else { return false };
    // SAFETY: a live element of eight-byte values.
    unsafe { add_atomically(count, change) };
    true
}

/// Open connections of a backend, over both paths.
#[inline(never)]
pub(crate) fn of(slot: &Slot) -> u64 {
    let mut key = LoadKey { addr: slot.addr, port: slot.port, path: counted::FLOWS };
    let flows = number(&key);
    key.path = counted::SOCKETS;
    flows + number(&key)
}

#[inline(always)]
fn number(key: &LoadKey) -> u64 {
    // SAFETY: copied at once; a count that changes meanwhile is as good.
    let count = unsafe { LOAD.get(key) }.copied().unwrap_or(0);
    if count < 0 { 0 } else { count as u64 }
}
