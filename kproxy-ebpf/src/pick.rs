//! From a service to a backend.

use kproxy_common::{
    drop_reason::DropReason,
    net::{Addr, Port},
    select,
    service::{Slot, Word, empty_verdict},
};

use crate::{
    affinity,
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

/// The backend of a service for a new connection: by round robin or, with a session affinity timeout
/// in seconds, for the client of this [`kproxy_common::affinity::client_kind`].
#[inline(always)]
pub(crate) fn backend(
    client: &Addr,
    kind: u32,
    service: u32,
    word: Word,
    affinity: u32,
) -> Result<Slot, DropReason> {
    if let Some(reason) = refusal(word) {
        return Err(reason);
    }
    let number = if affinity == 0 {
        let turn = stats::next_turn(service, Path::of_client(kind));
        select::round_robin(word, turn).ok_or(DropReason::BadMap)?
    } else {
        affinity::slot_for(client, kind, service, word.pack(), affinity)
    };
    SLOTS.get(number).copied().ok_or(DropReason::BadMap)
}

/// Whether the run still holds this backend.
#[inline(never)]
pub(crate) fn is_member(word: u64, addr: &Addr, port: Port) -> bool {
    let wanted = Slot::order_of(addr, port);
    select::find(Word::unpack(word), wanted, |number| SLOTS.get(number)).is_some()
}
