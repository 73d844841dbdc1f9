//! Any bytes in the maps become rows, or are left out: what reads them never panics.

use std::collections::HashMap;

use kproxy_common::flow::{FlowKey, FlowValue, flow_flags};
use kproxy_common::ranges::RangeData;
use kproxy_common::service::{Name, Service, Slot, Word};
use proptest::array::uniform;
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::FromBytes;

use super::flows::pair;
use crate::dataplane::codec;
use crate::dataplane::programs::pins::{PinDirs, parse_link};

fn of<T: FromBytes, const N: usize>(bytes: &[u8; N]) -> T {
    T::read_from_bytes(bytes).unwrap()
}

/// Few of the bytes are not zero, so that entries often belong together.
fn any_key() -> impl Strategy<Value = FlowKey> {
    let few = vec((0..40usize, 0..3u8), 0..4).prop_map(|changes| {
        let mut bytes = [0; 40];
        changes.into_iter().for_each(|(place, value)| bytes[place] = value);
        of(&bytes)
    });
    prop_oneof![9 => few, 1 => vec(any::<u8>(), 40).prop_map(|all| FlowKey::read_from_bytes(&all).unwrap())]
}

fn any_value() -> impl Strategy<Value = FlowValue> {
    (any_key(), any::<[u16; 2]>(), any::<[u32; 2]>()).prop_map(
        |(to, [flags, generation], [service, last_seen])| FlowValue {
            to,
            flags,
            generation,
            service,
            last_seen,
        },
    )
}

proptest! {
    #[test]
    fn any_flows_become_rows(entries in vec((any_key(), any_value()), 0..8), now in any::<u32>()) {
        let entries: HashMap<FlowKey, FlowValue> = entries.into_iter().collect();
        let rows = pair(&entries, now);
        let forward = |value: &&FlowValue| value.flags & flow_flags::REVERSE == 0;
        prop_assert!(rows.len() >= entries.values().filter(forward).count());
        prop_assert!(rows.len() <= entries.len());
        serde_json::to_string(&rows).unwrap();
    }

    #[test]
    fn any_element_is_decoded_or_left_out(
        name in uniform::<_, { size_of::<Name>() }>(any::<u8>()),
        slot in uniform::<_, { size_of::<Slot>() }>(any::<u8>()),
        service in uniform::<_, { size_of::<Service>() }>(any::<u8>()),
        range in (any::<u32>(), uniform::<_, { size_of::<RangeData>() }>(any::<u8>())),
    ) {
        let name: Name = of(&name);
        if let Some(id) = codec::decode_name(&name) {
            prop_assert!(!id.text().is_empty());
        }
        let slot: Slot = of(&slot);
        let backend = codec::decode_slot(&slot);
        let (again, order) = (codec::encode_slot(&backend), slot.order());
        prop_assert_eq!((again.order(), again.flags), (order, slot.flags & again.flags));
        let service: Service = of(&service);
        let word = codec::word_of(&service);
        prop_assert!(codec::run_len(word, Some(slot)) >= u32::from(word.count));
        prop_assert_eq!(codec::run_len(Word { count: 0, ..word }, Some(slot)), 0);
        codec::decode_algorithm(service.flags);
        codec::sources_of(service.flags);
        codec::kinds_of(service.flags);
        if let Some((id, net)) = codec::decode_range(range.0, &of(&range.1)) {
            prop_assert_eq!(id, of::<RangeData, _>(&range.1).service_port);
            prop_assert!(net.prefix_len() <= net.max_prefix_len());
        }
    }

    /// Names as kproxy writes them, and bytes that are nearly one.
    #[test]
    fn names_are_read_as_they_were_written(text in "[a-z/:.\\x00-]{0,40}", proto in any::<u8>()) {
        let mut name = Name { text: [0; kproxy_common::service::NAME_LEN], proto, family: 4, pad: [0; 2] };
        name.text[..text.len()].copy_from_slice(text.as_bytes());
        let Some(id) = codec::decode_name(&name) else { return Ok(()) };
        if let Some(again) = codec::encode_name(&id) {
            prop_assert_eq!(codec::decode_name(&again), Some(id));
        }
    }

    #[test]
    fn any_pin_is_of_a_program_and_perhaps_a_device(file_name in "[a-z0-9@%.]{0,20}|\\PC*") {
        let (program, device) = parse_link(&file_name);
        prop_assert!(file_name.starts_with(&program));
        prop_assert_eq!(device.is_some(), file_name.contains('@'));
    }

    #[test]
    fn links_of_any_device_are_found_again(device in "[^/\\x00]{1,15}") {
        let dirs = PinDirs::new(std::path::Path::new("/bpf"));
        let path = dirs.device_link("kp_ingress", &device);
        let name = path.file_name().unwrap().to_str().unwrap();
        prop_assert_eq!(parse_link(name), ("kp_ingress".to_owned(), Some(device)));
    }
}
