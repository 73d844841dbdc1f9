//! From a service to a backend.

use kproxy_common::{
    drop_reason::DropReason,
    select,
    service::{Slot, Word, empty_verdict},
};

use crate::{
    maps::{SERVICES, SLOTS},
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

/// The next backend of the service by round robin.
#[inline(always)]
pub(crate) fn backend(service: u32, word: Word, path: Path) -> Result<Slot, DropReason> {
    if let Some(reason) = refusal(word) {
        return Err(reason);
    }
    let slot =
        select::round_robin(word, stats::next_turn(service, path)).and_then(|n| SLOTS.get(n));
    slot.copied().ok_or(DropReason::BadMap)
}

/// Number of the slot of the run that holds `slot`'s address and port.
#[inline(never)]
pub(crate) fn member(word: Word, slot: &Slot) -> Option<u32> {
    select::find(word, slot, |number| SLOTS.get(number))
}
