//! Which slot of a run a new connection gets, and where a backend is in a run.

use crate::service::{Slot, Word};

/// Slot number for the `turn`-th connection of a CPU: round robin over the run.
/// `None` when the run is empty.
#[inline(always)]
pub const fn round_robin(word: Word, turn: u32) -> Option<u32> {
    if word.count == 0 {
        return None;
    }
    Some(word.first.wrapping_add(turn % word.count as u32))
}

/// Numbers of two slots of a run that are not the same, by two random numbers; of a run of one slot,
/// that one twice.
#[inline(always)]
pub const fn two(word: Word, random: u32, other: u32) -> (u32, u32) {
    let count = word.count as u32;
    if count < 2 {
        return (word.first, word.first);
    }
    let one = random % count;
    let other = (one + 1 + other % (count - 1)) % count;
    (word.first.wrapping_add(one), word.first.wrapping_add(other))
}

/// Slot number of the backend with this [`Slot::order`]; `None` when the run does not hold it. `slot`
/// reads a slot.
///
/// Runs are sorted, so this is a binary search: at most 17 slots are read, whatever the size of the
/// set. It counts how many slots come before the wanted one, bit by bit from the highest. There is no
/// branch on what was read, or the verifier would walk all the ways that a search can take.
#[inline(always)]
pub fn find<'a>(
    word: Word,
    wanted: [u64; 3],
    slot: impl Fn(u32) -> Option<&'a Slot>,
) -> Option<u32> {
    let count = u64::from(word.count);
    if count == 0 {
        return None;
    }
    let mut before = 0;
    let mut step = 1 << 15;
    while step > 0 {
        let next: u64 = before + step;
        let in_run = borrow(count, next, 0).wrapping_sub(1);
        let other = slot(word.first.wrapping_add(((next - 1) & in_run) as u32))?;
        before += step & in_run & 0u64.wrapping_sub(comes_before(other.order(), wanted));
        step >>= 1;
    }
    if before >= count {
        return None;
    }
    let number = word.first.wrapping_add(before as u32);
    let [high, low, port] = slot(number)?.order();
    // Not as arrays: that would be a call of memcmp.
    (high == wanted[0] && low == wanted[1] && port == wanted[2]).then_some(number)
}

/// 1 when `a` comes before `b`, else 0: what is borrowed when the one is subtracted from the other.
#[inline(always)]
const fn comes_before(a: [u64; 3], b: [u64; 3]) -> u64 {
    borrow(a[0], b[0], borrow(a[1], b[1], borrow(a[2], b[2], 0)))
}

/// The borrow of `a - b - carried`, 0 or 1 (Hacker's Delight, section 2-16).
#[inline(always)]
const fn borrow(a: u64, b: u64, carried: u64) -> u64 {
    let difference = a.wrapping_sub(b).wrapping_sub(carried);
    ((!a & b) | ((!a | b) & difference)) >> 63
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Addr, Port};

    #[test]
    fn every_slot_gets_its_turn() {
        let word = Word { first: 100, count: 3, generation: 1 };
        let slots: Vec<_> = (0..6).filter_map(|turn| round_robin(word, turn)).collect();
        assert_eq!(slots, [100, 101, 102, 100, 101, 102]);
        assert_eq!(round_robin(Word::default(), 5), None);
    }

    #[test]
    fn two_slots_are_never_the_same_and_every_pair_comes() {
        let word = Word { first: 100, count: 4, generation: 1 };
        let mut pairs = std::collections::BTreeMap::new();
        for random in 0..4 {
            for other in 0..3 {
                *pairs.entry(two(word, random, other)).or_insert(0) += 1;
            }
        }
        assert_eq!(pairs.len(), 12, "each pair once: {pairs:?}");
        assert!(
            pairs.keys().all(|(a, b)| a != b && (100..104).contains(a) && (100..104).contains(b))
        );
        assert_eq!(two(Word { count: 1, ..word }, 7, 9), (100, 100));
    }

    #[test]
    fn the_borrow_is_the_comparison() {
        let edges = [0, 1, 2, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX];
        let mut all = Vec::new();
        for a in edges {
            for b in edges {
                all.extend(edges.map(|c| [a, b, c]));
            }
        }
        for a in &all {
            for b in &all {
                assert_eq!(comes_before(*a, *b), u64::from(a < b), "{a:x?} {b:x?}");
            }
        }
    }

    #[test]
    fn every_backend_of_a_set_of_any_size_is_found_and_no_other() {
        // Two ports an address: the even addresses from 10.0.0.0 on.
        let slot = |i: u32| Slot {
            addr: Addr::from_v4_word((0x0a00_0000 + i / 2 * 2).to_be()),
            port: Port::new(if i.is_multiple_of(2) { 80 } else { 8080 }),
            ..Slot::default()
        };
        const FIRST: u32 = 7;
        let run: Vec<Slot> = (0..u32::from(u16::MAX)).map(slot).collect();
        for count in [0, 1, 2, 3, 255, 256, 257, 300, 1000, 32_767, 32_768, 32_769, u16::MAX] {
            let word = Word { first: FIRST, count, generation: 0 };
            let at = |number: u32| {
                let place = number.checked_sub(FIRST).unwrap() as usize;
                assert!(place < count.into(), "read beyond the run");
                run.get(place)
            };
            for i in 0..u32::from(count) {
                assert_eq!(find(word, slot(i).order(), at), Some(FIRST + i), "{i} of {count}");
            }
            for stranger in [
                Slot { port: Port::new(81), ..slot(0) },
                Slot { addr: Addr::from_v4_word(0x0a00_0001u32.to_be()), ..slot(0) },
                slot(count.into()),
                Slot::default(),
            ] {
                assert_eq!(find(word, stranger.order(), at), None, "{stranger:?} of {count}");
            }
        }
    }
}
