//! Where the lookup table of a maglev set lies, and where in it a client is.
//!
//! The table follows the run of the set, behind the backends and the endpoints that only keep what
//! they have. Each entry is the number of a backend within the run, [`PER_SLOT`] of them in a slot.

use crate::net::{Addr, Port};
use crate::service::{Slot, Word};

/// Entries in a slot: they fill its address, so that programs reach them by masks.
pub const PER_SLOT: u32 = 8;

/// Backends up to which the table is the smaller one. There are four entries a backend at least.
pub const SMALL_SET: u32 = 4095;

/// Entries of the table of a set with so many backends: the same for all sets that are not huge, for
/// a table of another size moves nearly every client.
#[inline(always)]
pub const fn table_len(backends: u32) -> u32 {
    if backends <= SMALL_SET { 1 << 14 } else { 1 << 17 }
}

/// Slots of the table of a set with so many backends.
#[inline(always)]
pub const fn table_slots(backends: u32) -> u32 {
    table_len(backends).div_ceil(PER_SLOT)
}

/// The output function of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators"). Written out, as nodes of different versions must agree on it.
#[inline(always)]
pub const fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number for a client that is the same on every node.
#[inline(always)]
pub const fn hash(client: &Addr, port: Port, proto: u8) -> u32 {
    let (high, low) = client.number();
    let rest = (proto as u64) << 16 | port.get() as u64;
    (mix(mix(mix(high) ^ low) ^ rest) >> 32) as u32
}

/// A number for a client that only this node sees.
#[inline(always)]
pub const fn hash_of_number(number: u64) -> u32 {
    (mix(number) >> 32) as u32
}

/// Place of a client in the table of a set with so many backends.
#[inline(always)]
pub const fn position(hash: u32, backends: u32) -> u32 {
    ((hash as u64 * table_len(backends) as u64) >> 32) as u32
}

/// Number of the slot that holds this place of the table. `extra`: [`Slot::extra`] of the first slot.
#[inline(always)]
pub const fn slot_number(word: Word, extra: u32, position: u32) -> u32 {
    word.first.wrapping_add(word.count as u32).wrapping_add(extra).wrapping_add(position / PER_SLOT)
}

/// The entry at this place, read from its slot.
#[inline(always)]
pub const fn entry(slot: &Slot, position: u32) -> u16 {
    let pair = slot.addr.0[(position / 2 % 4) as usize];
    (pair >> (position % 2 * 16)) as u16
}

/// A slot with these entries; what is beyond [`PER_SLOT`] is left out.
pub fn pack(entries: &[u16]) -> Slot {
    let mut slot = Slot::default();
    for (i, entry) in entries.iter().take(PER_SLOT as usize).enumerate() {
        slot.addr.0[i / 2] |= u32::from(*entry) << (i % 2 * 16);
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_packed() {
        for backends in [1, 7, SMALL_SET, SMALL_SET + 1] {
            let table: Vec<u16> =
                (0..table_len(backends)).map(|i| (i * 7 % backends) as u16).collect();
            let word = Word { first: 100, count: backends as u16, generation: 1 };
            let slots: Vec<Slot> = table.chunks(PER_SLOT as usize).map(pack).collect();
            assert_eq!(slots.len() as u32, table_slots(backends));
            for (position, wanted) in (0..).zip(&table) {
                let number = slot_number(word, 3, position) - (100 + backends + 3);
                assert_eq!(entry(&slots[number as usize], position), *wanted, "{position}");
            }
        }
    }

    #[test]
    fn positions_fill_the_table() {
        for backends in [1, SMALL_SET, SMALL_SET + 1] {
            assert_eq!(position(0, backends), 0);
            assert_eq!(position(u32::MAX, backends), table_len(backends) - 1);
        }
    }

    /// Nodes of different versions must agree: these numbers never change.
    #[test]
    fn a_client_has_the_same_number_in_every_version() {
        let addr = |text: &str| Addr::from(text.parse::<core::net::IpAddr>().unwrap());
        let number = |text, port, proto| hash(&addr(text), Port::new(port), proto);
        let numbers = [
            number("203.0.113.9", 40_000, 6),
            number("203.0.113.9", 40_001, 6),
            number("2001:db8::9", 40_000, 17),
        ];
        assert_eq!(numbers, [1_563_347_199, 3_464_164_921, 837_752_057]);
    }
}
