//! Laws of the logic that both sides run, for any numbers: maps may hold anything.

use core::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::config::Range;
use crate::filter;
use crate::maglev;
use crate::net::{Addr, Port};
use crate::ranges;
use crate::select;
use crate::service::{Slot, Word};
use crate::source_port;

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

/// From a few addresses and ports, so that some are there twice.
fn any_slot() -> impl Strategy<Value = Slot> {
    (0..8u32, 0..4u16, any::<u16>(), any::<u32>()).prop_map(|(addr, port, flags, extra)| Slot {
        addr: Addr::from_v4_word((0x0a00_0000 + addr).to_be()),
        port: Port::new(port),
        flags,
        extra,
    })
}

fn any_word() -> impl Strategy<Value = Word> {
    any::<u64>().prop_map(Word::unpack)
}

/// The first `len` bits of an address as it is written, zeros behind them.
fn front(ip: IpAddr, len: u8) -> u128 {
    let (bits, width) = match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    bits.checked_shr(width - u32::from(len)).unwrap_or(0)
}

proptest! {
    #[test]
    fn words_and_addresses_survive_the_round_trip(word in any::<u64>(), ip in any_ip()) {
        prop_assert_eq!(Word::unpack(word).pack(), word);
        prop_assert_eq!(IpAddr::from(Addr::from(ip)), ip.to_canonical());
    }

    #[test]
    fn filters_are_asked_within_their_size(words in any::<[u32; 4]>()) {
        let bit = filter::bit(&Addr(words));
        prop_assert!(bit < filter::BITS && filter::position(bit).0 < filter::WORDS);
        let (element, byte) = filter::flow_position(&Addr(words));
        prop_assert!(element < filter::FLOW_ELEMENTS && byte < 8);
    }

    #[test]
    fn a_range_holds_what_begins_as_it_does(base in any_ip(), other in any_ip(), len in 0..=128u8) {
        let width = if base.is_ipv4() { 32 } else { 128 };
        let len = len.min(width);
        let range = Range::new(base, len);
        prop_assert!(range.contains(&base.into()) || !range.is_set());
        // As a map of its own an IPv6 range may hold IPv4 addresses as well: their form is ::ffff:0:0.
        let same_family = base.is_ipv4() == other.is_ipv4();
        if same_family && range.is_set() {
            let holds = front(base, len) == front(other, len);
            prop_assert_eq!(range.contains(&other.into()), holds);
        }
        if range.is_set() {
            prop_assert_eq!(ranges::prefix_len_of(&range), Some(ranges::prefix_len(&base, len)));
        }
        prop_assert!(ranges::prefix_len(&base, len) <= ranges::ADDRESS_BITS);
    }

    #[test]
    fn source_ports_are_those_that_were_given(
        range in (1..=u16::MAX, any::<u16>()),
        seed in any::<u32>(),
        attempt in any::<u32>(),
    ) {
        let (first, count) = (range.0, range.1.min(u16::MAX - range.0));
        let port = source_port::nth(first, count, seed, attempt).get();
        prop_assert!(port >= first && port - first < count.max(1), "{port}");
    }

    #[test]
    fn picks_lie_within_the_run(word in any_word(), random in any::<[u32; 2]>()) {
        let holds = |number: u32| number.wrapping_sub(word.first) < u32::from(word.count);
        match select::round_robin(word, random[0]) {
            Some(number) => prop_assert!(holds(number)),
            None => prop_assert_eq!(word.count, 0),
        }
        let (one, other) = select::two(word, random[0], random[1]);
        prop_assert!(word.count == 0 || holds(one) && holds(other));
        prop_assert!(word.count < 2 || one != other);
    }

    #[test]
    fn a_backend_is_found_where_a_plain_look_finds_it(
        mut run in vec(any_slot(), 0..40),
        wanted in any_slot(),
        first in any::<u32>(),
    ) {
        run.sort_by_key(Slot::order);
        run.dedup_by_key(|slot| slot.order());
        let word = Word { first, count: run.len() as u16, generation: 0 };
        let read = |number: u32| run.get(number.wrapping_sub(first) as usize);
        let plain = run.iter().position(|slot| slot.order() == wanted.order());
        let plain = plain.map(|place| first.wrapping_add(place as u32));
        prop_assert_eq!(select::find(word, wanted.order(), read), plain);
    }

    /// A run that is being written, or one that the maps do not hold to the end.
    #[test]
    fn a_run_in_disorder_gives_no_wrong_backend(
        run in vec(any_slot(), 0..40),
        wanted in any_slot(),
        count in 0..50u16,
    ) {
        let word = Word { first: 0, count, generation: 0 };
        let found = select::find(word, wanted.order(), |number| run.get(number as usize));
        if let Some(number) = found {
            prop_assert!(number < u32::from(count));
            prop_assert_eq!(run[number as usize].order(), wanted.order());
        }
    }

    #[test]
    fn a_maglev_table_is_read_where_it_lies(
        word in any_word(),
        hash in any::<u32>(),
        extra in 0..64u32,
        entries in any::<[u16; 8]>(),
    ) {
        let backends = u32::from(word.count);
        let position = maglev::position(hash, backends);
        prop_assert!(position < maglev::table_len(backends));
        let start = word.first.wrapping_add(backends).wrapping_add(extra);
        let number = maglev::slot_number(word, extra, position).wrapping_sub(start);
        prop_assert!(number < maglev::table_slots(backends));
        let wanted = entries[(position % maglev::PER_SLOT) as usize];
        prop_assert_eq!(maglev::entry(&maglev::pack(&entries), position), wanted);
    }
}
