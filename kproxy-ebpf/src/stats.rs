//! Counters, and what is done so many times a second and no more. Per CPU, so plain additions are
//! enough.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use kproxy_common::{counters::DropKey, drop_reason::DropReason};

use crate::{
    kernel::{now, scratch},
    maps::{COUNTERS, DROPS},
};

/// The last drop that this CPU has counted.
#[map(name = "KP_DROPPED")]
static DROPPED: PerCpuArray<DropKey> = PerCpuArray::with_max_entries(1, 0);

/// What [`count_drop`] was told last on this CPU.
#[inline(always)]
pub(crate) fn last_drop() -> Option<DropKey> {
    scratch(&DROPPED).map(|last| *last)
}

/// Counts one refusal or drop of `service` (or [`kproxy_common::counters::NO_SERVICE`]).
#[inline(never)]
pub(crate) fn count_drop(service: u32, reason: DropReason) {
    let key = DropKey { service, reason: reason as u32 };
    if let Some(last) = scratch(&DROPPED) {
        *last = key;
    }
    if let Some(count) = DROPS.get_ptr_mut(&key) {
        // SAFETY: a live element of this CPU's copy.
        unsafe { *count += 1 };
        return;
    }
    // A full map loses the count, never the verdict.
    DROPS.insert(&key, 1, 0).ok();
}

/// How often something was done in the current second: {second, count}, by [`Limited`].
#[map(name = "KP_LIMITED")]
static LIMITED: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(3, 0);

/// What is done so many times a second and no more.
#[derive(Clone, Copy)]
pub(crate) enum Limited {
    Refusals = 0,
    Copies = 1,
    Events = 2,
}

/// Whether this CPU may do it once more, `most` times a second.
#[inline(always)]
pub(crate) fn may(what: Limited, most: u32) -> bool {
    let Some(done) = LIMITED.get_ptr_mut(what as u32) else { return false };
    // SAFETY: a live element of this CPU's copy.
    let [second, count] = unsafe { &mut *done };
    let now = now();
    if *second != now {
        (*second, *count) = (now, 0);
    }
    *count += 1;
    *count <= most
}

/// Counts one connection given a backend.
#[inline(always)]
pub(crate) fn count_connection(service: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(service) {
        // SAFETY: a live element of this CPU's copy.
        unsafe { (*counters).connections += 1 };
    }
}

/// Counts one connection that its backend has refused or not answered.
#[inline(always)]
pub(crate) fn count_failure(service: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(service) {
        // SAFETY: a live element of this CPU's copy.
        unsafe { (*counters).failed += 1 };
    }
}

/// Counts one translated packet.
#[inline(always)]
pub(crate) fn count_packet(service: u32, bytes: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(service) {
        // SAFETY: a live element of this CPU's copy.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += u64::from(bytes);
        }
    }
}
