//! Which backend of its set a new connection gets: round-robin, random, least connections, maglev.

use kproxy_common::{
    affinity::client_kind,
    maglev, select,
    service::{MAX_EXTRA, Word, service_flags, slot_flags},
};

use super::load;
use crate::{
    kernel::random,
    maps::{COUNTERS, SLOTS},
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
    round_robin(service, kind, word)
}

/// The next slot in turn. Each path has a position of its own on each CPU, which begins anywhere: or the
/// first connections of all Services, CPUs and nodes would go to the first endpoint.
#[inline(always)]
pub(crate) fn round_robin(service: u32, kind: u32, word: Word) -> u32 {
    let path = usize::from(kind != client_kind::NETNS);
    let turn = COUNTERS.get_ptr_mut(service).map_or(0, |counters| {
        // SAFETY: a live element of this CPU's copy.
        let turn = unsafe { &mut (*counters).turns[path] };
        let now = if *turn == 0 { random() } else { *turn };
        *turn = now.wrapping_add(1);
        now
    });
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
