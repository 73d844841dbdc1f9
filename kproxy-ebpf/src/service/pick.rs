//! From a service to a backend.

use kproxy_common::{
    affinity::{AffinityKey, AffinityValue},
    drop_reason::DropReason,
    maglev,
    net::{Addr, Port},
    select,
    service::{MAX_EXTRA, Slot, Word, empty_verdict, service_flags},
};

use super::algorithm;
use crate::{
    kernel,
    maps::{AFFINITY, SERVICES, SLOTS},
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

/// The backend of a service for a new connection: by the service's algorithm or, with session
/// affinity, the one that the client was given last.
///
/// `kind`: [`kproxy_common::affinity::client_kind`]; `settings`: see [`settings`]; `hash`: of this
/// connection of the client, asked for where the algorithm needs it.
#[inline(always)]
pub(crate) fn backend(
    client: &Addr,
    kind: u32,
    service: u32,
    word: Word,
    settings: u64,
    hash: impl FnOnce() -> u32,
) -> Result<&'static Slot, DropReason> {
    if let Some(reason) = refusal(word) {
        return Err(reason);
    }
    let number = if settings == NEXT_ONE {
        algorithm::round_robin(service, kind, word)
    } else {
        chosen(client, kind, service, word, settings, hash)
    };
    SLOTS.get(number).ok_or(DropReason::BadMap)
}

/// Number of the slot for a new connection of a service with settings of its own.
#[inline(always)]
fn chosen(
    client: &Addr,
    kind: u32,
    service: u32,
    word: Word,
    settings: u64,
    hash: impl FnOnce() -> u32,
) -> u32 {
    let (flags, timeout) = (settings as u32, affinity(settings));
    if timeout != 0 {
        let number = last_given(client, kind, service, word.pack(), timeout);
        if number != NONE {
            return number;
        }
    }
    let hash = if flags & service_flags::MAGLEV == 0 {
        0
    } else if timeout != 0 {
        // Of the client alone, so that nodes agree on a client that they do not know yet.
        maglev::hash(client, Port(0), 0)
    } else {
        hash()
    };
    let number = algorithm::choose(service, kind, word.pack(), flags, hash);
    if timeout != 0 {
        remember(client, kind, service, number);
    }
    number
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

/// [`settings`] of a service without any: the next backend by round robin, and no memory.
pub(crate) const NEXT_ONE: u64 = service_flags::IN_USE as u64;

/// How a service picks: its flags, and above them its session affinity timeout. In the cache line of
/// the word, which has just been read.
#[inline(always)]
pub(crate) fn settings(service: u32) -> u64 {
    match SERVICES.get(service) {
        Some(entry) => u64::from(entry.flags) | u64::from(entry.affinity_seconds) << 32,
        None => NEXT_ONE,
    }
}

/// Session affinity timeout in seconds among these [`settings`]; 0: none.
#[inline(always)]
pub(crate) const fn affinity(settings: u64) -> u32 {
    (settings >> 32) as u32
}

/// No slot: what fits into a register, for the callers have little stack left.
const NONE: u32 = u32::MAX;

/// Number of the slot with the backend that the client was given last, if the set still holds it and
/// the time is not up; else [`NONE`].
#[inline(never)]
fn last_given(client: &Addr, kind: u32, service: u32, word: u64, timeout: u32) -> u32 {
    let key = AffinityKey::new(*client, kind, service);
    let Some(value) = AFFINITY.get_ptr_mut(&key) else { return NONE };
    // SAFETY: a live element. An evicted one may be in use for another client by now: what is
    // read counts only if the set holds it, and that client's time would be prolonged at worst.
    let value = unsafe { &mut *value };
    if value.left(kernel::nanoseconds(), timeout) == 0 {
        return NONE;
    }
    let wanted = Slot::order_of(&value.addr, value.port);
    let found = select::find(Word::unpack(word), wanted, |number| SLOTS.get(number));
    if found.is_some() {
        value.last = kernel::nanoseconds();
    }
    found.unwrap_or(NONE)
}

/// Remembers the backend of this slot for the client.
#[inline(never)]
fn remember(client: &Addr, kind: u32, service: u32, number: u32) {
    let key = AffinityKey::new(*client, kind, service);
    if let Some(slot) = SLOTS.get(number) {
        let value = AffinityValue {
            addr: slot.addr,
            last: kernel::nanoseconds(),
            port: slot.port,
            pad: [0; 3],
        };
        // Without memory for it the client is a new one next time.
        AFFINITY.insert(&key, &value, 0).ok();
    }
}
