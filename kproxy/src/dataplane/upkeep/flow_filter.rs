//! Takes out of the flow filter what no flow sends to any more, while traffic goes on: the programs
//! only ever put in, and every packet to an address that stays in costs a look into the table.
//!
//! ```text
//! fresh ─▶ stale   wait   read the flows: their addresses are fresh   stale ─▶ nothing
//! ```
//!
//! A program puts the address in before it inserts the entry. Either it does so after the byte has
//! become stale, then the byte is fresh again and stays; or before, then the entry is there by the time
//! that the flows are read, as no program runs for as long as the wait.

use std::time::Duration;

use kproxy_common::{
    filter::{FLOW_ELEMENTS, FRESH, STALE, flow_position},
    net::Addr,
};

use crate::dataplane::{connections::Entry, kernel::memory::Memory};

/// Longer than a program runs.
pub(super) const WAIT: Duration = Duration::from_millis(200);
/// Sweeps from one rebuilding to the next.
const SWEEPS: u32 = 12;
/// From this part of the bytes on it is rebuilt earlier: every such part of packets to strangers gets
/// past the filter.
const PART: u32 = 4;

/// The filter and what is known of it.
pub(super) struct FlowFilter {
    bytes: Memory<u64>,
    /// Sweeps since it was rebuilt.
    sweeps: u32,
    /// Bytes that were set when it was rebuilt.
    left: u32,
}

impl FlowFilter {
    /// `bytes`: the array, whose last element is about other things.
    pub(super) const fn new(bytes: Memory<u64>) -> Self {
        Self { bytes, sweeps: 0, left: 0 }
    }

    /// Bytes that are set.
    fn set(&self) -> u32 {
        let words = (0..FLOW_ELEMENTS).filter_map(|index| self.bytes.get(index));
        words.map(|word| word.to_ne_bytes().iter().filter(|byte| **byte != 0).count() as u32).sum()
    }

    /// Whether it is to be rebuilt at this sweep. When it fills up, only if that can help: unless half
    /// of it has come since the last time.
    pub(super) fn is_due(&mut self) -> bool {
        self.sweeps += 1;
        let set = self.set();
        let is_filling_up = set > FLOW_ELEMENTS * 8 / PART && set > self.left * 2;
        set != 0 && (self.sweeps >= SWEEPS || is_filling_up)
    }

    /// Begins to rebuild it; after [`WAIT`] the flows can be read.
    pub(super) fn begin(&self) {
        self.exchange(FRESH, STALE);
    }

    /// Puts the addresses of these flows in, and takes out what is stale still.
    pub(super) fn finish(&mut self, entries: &[Entry]) {
        for (key, _) in entries {
            put_in(&self.bytes, &key.dst);
        }
        self.exchange(STALE, 0);
        (self.sweeps, self.left) = (0, self.set());
    }

    fn exchange(&self, from: u8, to: u8) {
        for index in 0..FLOW_ELEMENTS {
            self.bytes.exchange_bytes(index, from, to);
        }
    }
}

/// Puts an address in, as a program does it.
fn put_in(bytes: &Memory<u64>, addr: &Addr) {
    let (element, byte) = flow_position(addr);
    let mut set = [0; 8];
    set[byte & 7] = FRESH;
    bytes.change_bits(element, 0, u64::from_ne_bytes(set));
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::atomic::{AtomicU32, Ordering},
    };

    use kproxy_common::{filter::POD_FLOWS, flow::FlowKey, flow::FlowValue};

    use super::*;

    fn entry(number: u32) -> Entry {
        let dst = Addr::from(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)));
        (FlowKey { dst, ..FlowKey::default() }, FlowValue::default())
    }

    fn filter() -> FlowFilter {
        FlowFilter::new(Memory::anonymous(POD_FLOWS + 1).unwrap())
    }

    fn note(filter: &FlowFilter, (key, _): &Entry) {
        put_in(&filter.bytes, &key.dst);
    }

    fn byte(filter: &FlowFilter, (key, _): &Entry) -> u8 {
        let (element, byte) = flow_position(&key.dst);
        filter.bytes.get(element).unwrap().to_ne_bytes()[byte]
    }

    #[test]
    fn addresses_of_flows_stay_and_others_go() {
        let mut filter = filter();
        let [lives, gone, new, late] = [1, 2, 3, 4].map(entry);
        note(&filter, &lives);
        note(&filter, &gone);
        filter.bytes.change_bits(POD_FLOWS, 0, u64::from_ne_bytes([1, 1, FRESH, 0, 0, 0, 0, 0]));
        filter.begin();
        let stale = |of| byte(&filter, of) == STALE;
        assert!(stale(&lives) && stale(&gone));
        note(&filter, &new);
        note(&filter, &late);
        filter.finish(&[lives, new]);
        let bytes = [&lives, &gone, &new, &late].map(|of| byte(&filter, of));
        assert_eq!(bytes, [FRESH, 0, FRESH, FRESH]);
        assert_eq!((filter.set(), filter.left), (3, 3));
        let pods = filter.bytes.get(POD_FLOWS).unwrap().to_ne_bytes();
        assert_eq!(pods, [1, 1, FRESH, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn it_is_rebuilt_from_time_to_time_and_when_it_fills_up() {
        let mut filter = filter();
        assert!((0..SWEEPS * 2).all(|_| !filter.is_due()), "there is nothing in it");
        note(&filter, &entry(1));
        filter.finish(&[entry(1)]);
        assert_eq!((0..SWEEPS).map(|_| filter.is_due()).filter(|due| *due).count(), 1);
        filter.finish(&[entry(1)]);
        let many: Vec<Entry> = (0..FLOW_ELEMENTS * 8).map(entry).collect();
        many.iter().for_each(|entry| note(&filter, entry));
        assert!(filter.is_due());
        filter.finish(&many);
        assert!(!filter.is_due(), "all of them live");
    }

    #[test]
    fn what_is_put_in_meanwhile_is_never_lost() {
        let mut filter = filter();
        let open = AtomicU32::new(0);
        const FLOWS: u32 = 20_000;
        // All flows are noted, then counted as open, as if they had been inserted.
        std::thread::scope(|scope| {
            let bytes = &filter.bytes;
            let opened = &open;
            let writer = scope.spawn(move || {
                for number in 1..=FLOWS {
                    put_in(bytes, &entry(number).0.dst);
                    opened.store(number, Ordering::Release);
                }
            });
            while !writer.is_finished() {
                for index in 0..FLOW_ELEMENTS {
                    bytes.exchange_bytes(index, FRESH, STALE);
                }
            }
        });
        let live: Vec<Entry> = (1..=open.load(Ordering::Acquire)).map(entry).collect();
        assert!(live.iter().all(|entry| byte(&filter, entry) != 0));
        filter.finish(&live);
        assert!(live.iter().all(|entry| byte(&filter, entry) == FRESH));
    }
}
