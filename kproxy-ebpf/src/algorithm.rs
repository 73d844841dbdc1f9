//! Which backend of its set a new connection gets, where that is not simply the next one.

use kproxy_common::{
    maglev, select,
    service::{MAX_EXTRA, Word, service_flags, slot_flags},
};

use crate::{
    load,
    maps::SLOTS,
    pick::random,
    stats::{self, Path},
};

/// Number of the slot for a new connection of a client of this kind.
///
/// `word`: packed, with at least one slot; `flags`: of the service; `hash`: of the client, for
/// maglev. Five arguments are what a BPF function can have.
#[inline(never)]
pub(crate) fn choose(service: u32, kind: u32, word: u64, flags: u32, hash: u32) -> u32 {
    let word = Word::unpack(word);
    if flags & service_flags::RANDOM != 0 {
        return select::round_robin(word, random()).unwrap_or(word.first);
    }
    if flags & service_flags::LEAST_CONNECTIONS != 0 {
        return least_connections(word);
    }
    if flags & service_flags::MAGLEV != 0
        && let Some(number) = by_table(word, hash)
    {
        return number;
    }
    let turn = stats::next_turn(service, Path::of_client(kind));
    select::round_robin(word, turn).unwrap_or(word.first)
}

/// Of two random backends the one with fewer open connections: nearly as even as asking all of
/// them, at the same price for a set of any size (Mitzenmacher, "The Power of Two Choices in
/// Randomized Load Balancing").
#[inline(always)]
fn least_connections(word: Word) -> u32 {
    let (one, other) = select::two(word, random(), random());
    let (Some(first), Some(second)) = (SLOTS.get(one), SLOTS.get(other)) else { return one };
    if load::of(second) < load::of(first) { other } else { one }
}

/// The backend that the table has for a client; `None` when the run has no table (yet).
#[inline(always)]
fn by_table(word: Word, hash: u32) -> Option<u32> {
    let first = SLOTS.get(word.first)?;
    if first.flags & slot_flags::TABLE == 0 || first.extra > MAX_EXTRA {
        return None;
    }
    let position = maglev::position(hash, u32::from(word.count));
    let slot = SLOTS.get(maglev::slot_number(word, first.extra, position))?;
    let number = maglev::entry(slot, position);
    (number < word.count).then(|| word.first.wrapping_add(u32::from(number)))
}
