//! From a service to a backend.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use kproxy_common::{
    affinity::{AffinityKey, AffinityValue},
    drop_reason::DropReason,
    net::{Addr, Port},
    select,
    service::{MAX_EXTRA, Slot, Word, cluster_index, empty_verdict},
};

use crate::{
    maps::{AFFINITY, SERVICES, SLOTS},
    stats::{self, Path},
};

/// The published word of a service: one load, so that first slot, count and generation belong
/// together.
#[inline(always)]
pub(crate) fn word(service: u32) -> Option<u64> {
    let entry = SERVICES.get_ptr(service)?;
    // SAFETY: a live array element, eight-byte aligned; volatile keeps it a single load.
    Some(unsafe { core::ptr::read_volatile(&raw const (*entry).word) })
}

/// Why a service with this word gives no backend, if it gives none.
#[inline(always)]
pub(crate) fn refusal(word: Word) -> Option<DropReason> {
    if word.count != 0 {
        return None;
    }
    Some(if word.first == empty_verdict::DROP {
        DropReason::NoLocalBackend
    } else {
        DropReason::NoBackend
    })
}

/// The backend of a service for a new connection: by round robin or, with a session affinity timeout
/// in seconds, for the client of this [`kproxy_common::affinity::client_kind`].
#[inline(always)]
pub(crate) fn backend(
    client: &Addr,
    kind: u32,
    service: u32,
    word: Word,
    affinity: u32,
) -> Result<&'static Slot, DropReason> {
    if let Some(reason) = refusal(word) {
        return Err(reason);
    }
    let number = if affinity == 0 {
        let turn = stats::next_turn(service, Path::of_client(kind));
        select::round_robin(word, turn).ok_or(DropReason::BadMap)?
    } else {
        slot_for(client, kind, service, word.pack(), affinity)
    };
    SLOTS.get(number).ok_or(DropReason::BadMap)
}

/// Whether the run still holds this backend: as a backend, or as an endpoint that only keeps what it
/// has. Only backends are sorted.
#[inline(never)]
pub(crate) fn is_member(word: u64, addr: &Addr, port: Port) -> bool {
    let word = Word::unpack(word);
    if word.count == 0 {
        return false;
    }
    if select::find(word, Slot::order_of(addr, port), |number| SLOTS.get(number)).is_some() {
        return true;
    }
    let Some(first) = SLOTS.get(word.first) else { return false };
    let end = word.first.wrapping_add(u32::from(word.count));
    let mut i = 0;
    while i < MAX_EXTRA {
        if i >= first.extra {
            return false;
        }
        let Some(other) = SLOTS.get(end.wrapping_add(i)) else { return false };
        // One branch, not five: the verifier walks every way through all of the slots.
        let ([a, b, c, d], [e, f, g, h]) = (addr.0, other.addr.0);
        if (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | u32::from(port.0 ^ other.port.0) == 0 {
            return true;
        }
        i += 1;
    }
    false
}

/// Session affinity timeout of a service in seconds; 0: it has none. In the cache line of the word,
/// which has just been read.
#[inline(always)]
pub(crate) fn affinity(service: u32) -> u32 {
    SERVICES.get(service).map_or(0, |entry| entry.affinity_seconds)
}

/// Number of the slot for a new connection of `client`: that of the backend which it was given last,
/// if the set still holds it and the time is not up, else the next by round robin. It is remembered.
///
/// `kind`: [`kproxy_common::affinity::client_kind`]; `word`: packed, with at least one slot. What
/// goes in and out fits into registers: the callers have little stack left.
#[inline(never)]
fn slot_for(client: &Addr, kind: u32, service: u32, word: u64, timeout: u32) -> u32 {
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
