//! Session affinity: a client's new connections go to the backend that it was given last.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use kproxy_common::{
    affinity::{AffinityKey, AffinityValue},
    service::{Slot, Word},
};

use crate::{
    maps::{AFFINITY, SERVICES, SLOTS},
    pick,
};

/// Session affinity timeout of a service in seconds; 0: it has none. In the cache line of the word,
/// which has just been read.
#[inline(always)]
pub(crate) fn timeout(service: u32) -> u32 {
    SERVICES.get(service).map_or(0, |entry| entry.affinity_seconds)
}

/// The backend that the client was given last, if the set still holds it and the time is not up.
/// The connection that gets it is to be [`remember`]ed, too.
#[inline(always)]
pub(crate) fn recall(client: &AffinityKey, word: Word, timeout: u32) -> Option<Slot> {
    // SAFETY: an evicted element may be in use for another client while it is read: what is read
    // counts only if the set holds it.
    let value = unsafe { AFFINITY.get(client) }?;
    let (addr, port) = (value.addr, value.port);
    // SAFETY: no arguments.
    if value.left(unsafe { bpf_ktime_get_ns() }, timeout) == 0 {
        return None;
    }
    let slot = Slot { addr, port, ..Slot::default() };
    SLOTS.get(pick::member(word, &slot)?).copied()
}

/// Notes that the client has opened a connection to this backend.
#[inline(never)]
pub(crate) fn remember(client: &AffinityKey, slot: &Slot) {
    // SAFETY: no arguments.
    let last = unsafe { bpf_ktime_get_ns() };
    let value = AffinityValue { addr: slot.addr, last, port: slot.port, pad: [0; 3] };
    // Without memory for it the client is a new one next time.
    let _ = AFFINITY.insert(client, &value, 0);
}
