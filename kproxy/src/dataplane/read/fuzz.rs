//! Any flow entries become rows: what pairs them never panics.

use kproxy_common::config::Config;
use kproxy_common::flow::{FlowKey, FlowValue, flow_flags};
use proptest::collection::vec;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes as _};

use super::flows::rows;

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
    (any_key(), any::<[u16; 2]>(), any::<[u32; 2]>(), any::<u8>()).prop_map(
        |(to, [flags, generation], [service, last_seen], state)| FlowValue {
            to,
            flags,
            generation,
            service,
            last_seen,
            state,
            ..FlowValue::default()
        },
    )
}

proptest! {
    #[test]
    fn any_flows_become_rows(entries in vec((any_key(), any_value()), 0..8), now in any::<u32>()) {
        let mut entries = entries;
        entries.sort_by_key(|(key, _)| FlowKey::as_bytes(key).to_vec());
        entries.dedup_by_key(|(key, _)| *key);
        let rows = rows(&entries, &Config::default(), now);
        let forward = |(_, value): &&(FlowKey, FlowValue)| value.flags & flow_flags::REVERSE == 0;
        prop_assert!(rows.len() >= entries.iter().filter(forward).count());
        prop_assert!(rows.len() <= entries.len());
        serde_json::to_string(&rows).unwrap();
    }
}
