//! Which slot of a run a new connection gets.

use crate::service::Word;

/// Slot number for the `turn`-th connection of a CPU: round robin over the run.
/// `None` when the run is empty.
#[inline(always)]
pub const fn round_robin(word: Word, turn: u32) -> Option<u32> {
    if word.count == 0 {
        return None;
    }
    Some(word.first.wrapping_add(turn % word.count as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_gets_its_turn() {
        let word = Word { first: 100, count: 3, generation: 1 };
        let slots: Vec<_> = (0..6).filter_map(|turn| round_robin(word, turn)).collect();
        assert_eq!(slots, [100, 101, 102, 100, 101, 102]);
        assert_eq!(round_robin(Word::default(), 5), None);
    }
}
