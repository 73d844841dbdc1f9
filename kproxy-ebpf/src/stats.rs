//! Counters. Per CPU, so plain additions are enough.

use kproxy_common::{affinity::client_kind, counters::DropKey, drop_reason::DropReason};

use crate::{
    flow::now,
    maps::{COUNTERS, DROPS, LIMITED},
};

/// Counts one refusal or drop of `service` (or [`kproxy_common::counters::NO_SERVICE`]).
#[inline(never)]
pub(crate) fn count_drop(service: u32, reason: DropReason) {
    let key = DropKey { service, reason: reason as u32 };
    if let Some(count) = DROPS.get_ptr_mut(&key) {
        // SAFETY: a live element of this CPU's copy.
        unsafe { *count += 1 };
        return;
    }
    // A full map loses the count, never the verdict.
    let _ = DROPS.insert(&key, 1, 0);
}

/// What is done so many times a second and no more.
#[derive(Clone, Copy)]
pub(crate) enum Limited {
    Refusals = 0,
    Copies = 1,
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

/// Which path a new connection takes; each has a round-robin position of its own.
#[derive(Clone, Copy)]
pub(crate) enum Path {
    Socket = 0,
    Packet = 1,
}

impl Path {
    /// The path of a client of this [`client_kind`].
    #[inline(always)]
    pub(crate) fn of_client(kind: u32) -> Self {
        if kind == client_kind::NETNS { Self::Socket } else { Self::Packet }
    }
}

/// This CPU's round-robin position for a new connection of `service`.
#[inline(always)]
pub(crate) fn next_turn(service: u32, path: Path) -> u32 {
    let Some(counters) = COUNTERS.get_ptr_mut(service) else { return 0 };
    // SAFETY: a live element of this CPU's copy.
    unsafe {
        let turn = (*counters).turns[path as usize];
        (*counters).turns[path as usize] = turn.wrapping_add(1);
        turn
    }
}

/// Counts one connection given a backend.
#[inline(always)]
pub(crate) fn count_connection(service: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(service) {
        // SAFETY: a live element of this CPU's copy.
        unsafe { (*counters).connections += 1 };
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
