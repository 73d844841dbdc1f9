//! Session affinity: a client's new connections go to the backend that it was given last.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use kproxy_common::{
    affinity::{AffinityKey, AffinityValue},
    net::Addr,
    select,
    service::{Slot, Word, cluster_index},
};

use crate::{
    maps::{AFFINITY, SERVICES, SLOTS},
    stats::{self, Path},
};

/// Session affinity timeout of a service in seconds; 0: it has none. In the cache line of the word,
/// which has just been read.
#[inline(always)]
pub(crate) fn timeout(service: u32) -> u32 {
    SERVICES.get(service).map_or(0, |entry| entry.affinity_seconds)
}

/// Number of the slot for a new connection of `client`: that of the backend which it was given last,
/// if the set still holds it and the time is not up, else the next by round robin. It is remembered.
///
/// `kind`: [`kproxy_common::affinity::client_kind`]; `word`: packed, with at least one slot. What
/// goes in and out fits into registers: the callers have little stack left.
#[inline(never)]
pub(crate) fn slot_for(client: &Addr, kind: u32, service: u32, word: u64, timeout: u32) -> u32 {
    let key = AffinityKey::new(*client, kind, service);
    let word = Word::unpack(word);
    if let Some(value) = AFFINITY.get_ptr_mut(&key) {
        // SAFETY: a live element. An evicted one may be in use for another client by now: what is
        // read counts only if the set holds it, and that client's time would be prolonged at worst.
        let value = unsafe { &mut *value };
        if value.left(now(), timeout) != 0 {
            let wanted = Slot::order_of(&value.addr, value.port);
            if let Some(number) = select::find(word, wanted, |number| SLOTS.get(number)) {
                value.last = now();
                return number;
            }
        }
    }
    // Taken from the key: what lives through the search above costs stack.
    let path = Path::of_client(key.kind);
    let turn = stats::next_turn(cluster_index(key.service_port), path);
    let number = select::round_robin(word, turn).unwrap_or(word.first);
    if let Some(slot) = SLOTS.get(number) {
        let value = AffinityValue { addr: slot.addr, last: now(), port: slot.port, pad: [0; 3] };
        // Without memory for it the client is a new one next time.
        let _ = AFFINITY.insert(&key, &value, 0);
    }
    number
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}
