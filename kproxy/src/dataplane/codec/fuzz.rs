//! Any bytes in the maps are decoded, or left out: nothing panics.

use kproxy_common::{
    ranges::RangeData,
    service::{NAME_LEN, Name, Service, Slot, Word},
};
use proptest::{array::uniform, prelude::*};
use zerocopy::FromBytes;

use super::{
    frontends::{kinds_of, sources_of},
    names::*,
    ranges::decode_range,
    sets::*,
};

fn of<T: FromBytes, const N: usize>(bytes: &[u8; N]) -> T {
    T::read_from_bytes(bytes).unwrap()
}

proptest! {
    #[test]
    fn any_element_is_decoded_or_left_out(
        name in uniform::<_, { size_of::<Name>() }>(any::<u8>()),
        slot in uniform::<_, { size_of::<Slot>() }>(any::<u8>()),
        service in uniform::<_, { size_of::<Service>() }>(any::<u8>()),
        range in (any::<u32>(), uniform::<_, { size_of::<RangeData>() }>(any::<u8>())),
    ) {
        let name: Name = of(&name);
        if let Some(id) = decode_name(&name) {
            prop_assert!(!id.text().is_empty());
        }
        let slot: Slot = of(&slot);
        let backend = decode_slot(&slot);
        let (again, order) = (encode_slot(&backend), slot.order());
        prop_assert_eq!((again.order(), again.flags), (order, slot.flags & again.flags));
        let service: Service = of(&service);
        let word = word_of(&service);
        prop_assert!(run_len(word, Some(slot)) >= u32::from(word.count));
        prop_assert_eq!(run_len(Word { count: 0, ..word }, Some(slot)), 0);
        decode_algorithm(service.flags);
        sources_of(service.flags);
        kinds_of(service.flags);
        if let Some((id, net)) = decode_range(range.0, &of(&range.1)) {
            prop_assert_eq!(id, of::<RangeData, _>(&range.1).service_port);
            prop_assert!(net.prefix_len() <= net.max_prefix_len());
        }
    }

    /// Names as kproxy writes them, and bytes that are nearly one.
    #[test]
    fn names_are_read_as_they_were_written(text in "[a-z/:.\\x00-]{0,40}", proto in any::<u8>()) {
        let mut name = Name { text: [0; NAME_LEN], proto, family: 4, pad: [0; 2] };
        name.text[..text.len()].copy_from_slice(text.as_bytes());
        let Some(id) = decode_name(&name) else { return Ok(()) };
        if let Some(again) = encode_name(&id) {
            prop_assert_eq!(decode_name(&again), Some(id));
        }
    }
}
