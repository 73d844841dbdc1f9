//! What waits for the first fragment of its packet: so many copies and bytes, so long and no longer.
//! Pure; the time comes with each call.

use std::collections::VecDeque;
use std::time::Duration;

use kproxy_common::{
    flow::FlowKey,
    fragment::{Note, note_flags},
};

/// How long a copy waits. Fragments that overtake each other are microseconds apart, on ways of
/// different length milliseconds.
pub(super) const LONGEST: Duration = Duration::from_millis(200);
/// How old a copy may be when the daemon hears of it: a busy machine may let it wait, and the first
/// fragment may be among the next notes.
const LATEST: Duration = Duration::from_secs(1);
/// Most copies, and their bytes.
pub(super) const MOST_COPIES: usize = 512;
pub(super) const MOST_BYTES: usize = 1 << 20;

/// A fragment as it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) note: Note,
    /// The packet from its first header on.
    pub(super) packet: Vec<u8>,
}

/// Fragments that are given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lost {
    /// Because too many wait.
    pub(super) pushed_out: u32,
    /// Because their first one did not come. Only those of which there was nothing but the copy: the
    /// others went their way, whosever they were.
    pub(super) alone: u32,
}

/// The copies that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Hold {
    waiting: VecDeque<Held>,
    bytes: usize,
    lost: Lost,
}

impl Hold {
    /// Takes what a program has told; what may go now is added to `free`, in the order in which it
    /// came.
    pub(super) fn take(&mut self, note: &Note, packet: &[u8], now: Duration, free: &mut Vec<Held>) {
        if note.flags & note_flags::FIRST == 0 {
            self.keep(Held { note: *note, packet: packet.to_vec() }, now);
        } else {
            self.release(&note.key, free);
        }
    }

    fn keep(&mut self, held: Held, now: Duration) {
        if is_older(&held.note, LATEST, now) {
            // As when the daemon was stopped for a while.
            self.give_up(&held.note);
            return;
        }
        self.bytes += held.packet.len();
        self.waiting.push_back(held);
        // The oldest go, not the newest: in a flood of others a packet then has a little time
        // instead of none.
        while self.waiting.len() > MOST_COPIES || self.bytes > MOST_BYTES {
            if self.pop().is_some() {
                self.lost.pushed_out += 1;
            }
        }
    }

    fn release(&mut self, key: &FlowKey, free: &mut Vec<Held>) {
        if !self.waiting.iter().any(|held| held.note.key == *key) {
            return;
        }
        for held in std::mem::take(&mut self.waiting) {
            if held.note.key == *key {
                self.bytes -= held.packet.len();
                free.push(held);
            } else {
                self.waiting.push_back(held);
            }
        }
    }

    /// Forgets what has waited long enough. To be called when there is nothing more to take.
    pub(super) fn expire(&mut self, now: Duration) {
        while self.waiting.front().is_some_and(|held| is_older(&held.note, LONGEST, now)) {
            if let Some(held) = self.pop() {
                self.give_up(&held.note);
            }
        }
    }

    /// When [`Self::expire`] has something to do; `None`: nothing waits.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.waiting.front().map(|held| Duration::from_nanos(held.note.time) + LONGEST)
    }

    /// What was given up since the last call.
    pub(super) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    fn pop(&mut self) -> Option<Held> {
        let held = self.waiting.pop_front()?;
        self.bytes -= held.packet.len();
        Some(held)
    }

    fn give_up(&mut self, note: &Note) {
        if note.flags & note_flags::ONLY_COPY != 0 {
            self.lost.alone += 1;
        }
    }
}

fn is_older(note: &Note, age: Duration, now: Duration) -> bool {
    now >= Duration::from_nanos(note.time) + age
}

#[cfg(test)]
mod tests {
    use kproxy_common::net::{Port, proto};
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(1_000);
    const NONE: [u8; 0] = [];
    const COPY: u32 = 0;
    const FIRST: u32 = note_flags::FIRST;

    /// A note about the packet with this identification, so many milliseconds after the start.
    fn note(id: u16, flags: u32, millis: u64) -> Note {
        let time = (START + Duration::from_millis(millis)).as_nanos() as u64;
        let mut key = FlowKey::default();
        key.set_rest(Port(id), Port(0), proto::UDP);
        Note { time, key, flags, ..Note::default() }
    }

    fn at(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    /// Takes a note at its own time; the first bytes of what may go.
    fn take(hold: &mut Hold, note: &Note, packet: &[u8]) -> Vec<u8> {
        let mut free = Vec::new();
        hold.take(note, packet, Duration::from_nanos(note.time), &mut free);
        free.iter().map(|held| held.packet[0]).collect()
    }

    #[test]
    fn copies_go_in_order_when_their_first_one_has_come_and_only_once() {
        let mut hold = Hold::default();
        for (id, byte) in [(1, 3), (2, 9), (1, 2), (1, 1)] {
            assert_eq!(take(&mut hold, &note(id, COPY, 0), &[byte]), NONE);
        }
        assert_eq!(take(&mut hold, &note(1, FIRST, 5), &[]), [3, 2, 1]);
        assert_eq!(take(&mut hold, &note(1, FIRST, 5), &[]), NONE);
        assert_eq!(hold.bytes, 1);
        assert_eq!(take(&mut hold, &note(2, FIRST, 6), &[]), [9]);
        assert_eq!((hold.bytes, hold.next_end()), (0, None));
        assert_eq!(hold.take_lost(), Lost::default());
    }

    #[test]
    fn nothing_waits_longer_than_it_may() {
        let mut hold = Hold::default();
        take(&mut hold, &note(1, COPY, 0), &[1]);
        take(&mut hold, &note(2, note_flags::ONLY_COPY, 50), &[2]);
        assert_eq!(hold.next_end(), Some(at(200)));
        hold.expire(at(199));
        assert_eq!(hold.waiting.len(), 2);
        hold.expire(at(200));
        assert_eq!((hold.waiting.len(), hold.next_end()), (1, Some(at(250))));
        assert_eq!(hold.take_lost(), Lost::default(), "the packet itself had passed");
        hold.expire(at(250));
        assert_eq!(hold.take_lost(), Lost { alone: 1, pushed_out: 0 });
        assert_eq!(hold.take_lost(), Lost::default());
        assert_eq!(take(&mut hold, &note(2, FIRST, 251), &[]), NONE);
        // The daemon may be late itself, but not much.
        for (late, goes) in [(200, 1), (999, 1), (1000, 0)] {
            let mut free = Vec::new();
            hold.take(&note(3, note_flags::ONLY_COPY, 0), &[3], at(late), &mut free);
            hold.take(&note(3, FIRST, 1), &[], at(late), &mut free);
            hold.expire(at(late));
            assert_eq!((free.len(), hold.bytes), (goes, 0), "{late} ms");
            assert_eq!(hold.take_lost().alone as usize, 1 - goes);
        }
    }

    #[test]
    fn too_many_and_too_large_ones_push_the_oldest_out() {
        let mut hold = Hold::default();
        let ids = MOST_COPIES as u16 + 3;
        for id in 0..ids {
            take(&mut hold, &note(id, COPY, 0), &[1]);
        }
        assert_eq!((hold.waiting.len(), hold.take_lost().pushed_out), (MOST_COPIES, 3));
        assert_eq!(take(&mut hold, &note(2, FIRST, 0), &[]), NONE);
        assert_eq!(take(&mut hold, &note(3, FIRST, 0), &[]), [1]);
        for _ in 0..3 {
            take(&mut hold, &note(ids, COPY, 0), &vec![2; MOST_BYTES / 2]);
        }
        assert_eq!((hold.waiting.len(), hold.bytes), (2, MOST_BYTES / 2 * 2));
        assert_eq!(take(&mut hold, &note(ids, FIRST, 0), &[]), [2, 2]);
        assert_eq!(hold.bytes, 0);
    }

    proptest! {
        /// Whatever comes: the bounds hold, and each copy goes once or is given up.
        #[test]
        fn bounds_hold_and_nothing_goes_twice(
            events in proptest::collection::vec((0..9u16, 0..4u32, 0..9_216usize, 0..20u64), 1..900)
        ) {
            let (mut hold, mut free, mut now, mut copies) = (Hold::default(), Vec::new(), 0, 0);
            let mut lost = 0;
            for (id, kind, len, wait) in events {
                now += wait / 10;
                let flags = [COPY, COPY, COPY, FIRST];
                let is_copy = flags[kind as usize] == COPY;
                copies += usize::from(is_copy);
                let only_copy = if is_copy { note_flags::ONLY_COPY } else { 0 };
                let note = note(id, flags[kind as usize] | only_copy, now);
                hold.take(&note, &vec![0; len], at(now), &mut free);
                hold.expire(at(now));
                prop_assert!(hold.waiting.len() <= MOST_COPIES && hold.bytes <= MOST_BYTES);
                let bytes: usize = hold.waiting.iter().map(|held| held.packet.len()).sum();
                prop_assert_eq!(hold.bytes, bytes);
                prop_assert!(hold.next_end().is_none_or(|end| end > at(now)));
                let Lost { pushed_out, alone } = hold.take_lost();
                lost += (pushed_out + alone) as usize;
            }
            prop_assert_eq!(copies, free.len() + hold.waiting.len() + lost);
        }
    }
}
