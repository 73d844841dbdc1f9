//! Maps that hold any bytes, as after a bug or an attack on the pins: every table is printed.

use std::cell::RefCell;

use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, EbpfLoader, Pod};
use kproxy_common::abi::{ABI_VERSION, map};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::maps::{printed, with_own_bpffs};

/// Each starts the binary thrice.
const CASES: u32 = 16;
/// Entries of each map.
const ENTRIES: usize = 6;

/// Few different bytes, so that entries of different maps belong together.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let few = prop_oneof![12 => Just(0u8), 4 => Just(1u8), 1 => any::<u8>()];
    prop_oneof![2 => vec(few, 2048), 1 => vec(any::<u8>(), 2048)]
}

/// Fills a hash, and takes out what the case before has left in it.
fn hash<const K: usize, const V: usize>(ebpf: &RefCell<Ebpf>, name: &str, bytes: &[u8])
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    let mut ebpf = ebpf.borrow_mut();
    let map = ebpf.map_mut(name).unwrap();
    let mut map = HashMap::<&mut MapData, [u8; K], [u8; V]>::try_from(map).unwrap();
    let old: Vec<[u8; K]> = map.keys().map(Result::unwrap).collect();
    old.iter().for_each(|key| map.remove(key).unwrap());
    for chunk in bytes.chunks_exact(K + V).take(ENTRIES) {
        let (key, value) = chunk.split_at(K);
        let (key, value): ([u8; K], [u8; V]) = (key.try_into().unwrap(), value.try_into().unwrap());
        map.insert(key, value, 0).unwrap();
    }
}

fn array<const V: usize>(ebpf: &RefCell<Ebpf>, name: &str, bytes: &[u8])
where
    [u8; V]: Pod,
{
    let mut ebpf = ebpf.borrow_mut();
    let map = ebpf.map_mut(name).unwrap();
    let mut map = Array::<&mut MapData, [u8; V]>::try_from(map).unwrap();
    let last = map.len();
    for (index, chunk) in (0..last).zip(bytes.chunks_exact(V)) {
        map.set(index, <[u8; V]>::try_from(chunk).unwrap(), 0).unwrap();
    }
}

#[test]
fn every_table_is_printed_whatever_the_maps_hold() {
    with_own_bpffs(|bpffs| {
        let mut loader = EbpfLoader::new();
        for name in
            [map::SERVICES, map::SLOTS, map::FRONTENDS, map::FLOWS, map::NAMES, map::COUNTERS]
        {
            loader.map_max_entries(name, 64);
        }
        let ebpf = loader.load(kproxy::dataplane::OBJECT).unwrap();
        let maps = bpffs.join(format!("kproxy/v{ABI_VERSION}/maps"));
        std::fs::create_dir_all(&maps).unwrap();
        for name in map::PINNED {
            ebpf.map(name).unwrap().pin(maps.join(name)).unwrap();
        }
        let ebpf = RefCell::new(ebpf);
        let config = ProptestConfig {
            cases: CASES,
            source_file: Some(file!()),
            max_shrink_iters: 64,
            ..ProptestConfig::default()
        };
        let ran = TestRunner::new(config).run(&vec(any_bytes(), 8), |bytes| {
            hash::<20, 12>(&ebpf, map::FRONTENDS, &bytes[0]);
            hash::<4, 196>(&ebpf, map::NAMES, &bytes[1]);
            hash::<40, 72>(&ebpf, map::FLOWS, &bytes[2]);
            hash::<24, 32>(&ebpf, map::AFFINITY, &bytes[3]);
            hash::<20, 8>(&ebpf, map::LOAD, &bytes[4]);
            array::<16>(&ebpf, map::SERVICES, &bytes[5]);
            array::<24>(&ebpf, map::SLOTS, &bytes[6]);
            array::<392>(&ebpf, map::CONFIG, &bytes[7]);
            for words in [&["dump", "all"][..], &["dump", "all", "-o", "json"]] {
                printed(words, bpffs);
            }
            let json = printed(&["dump", "flows", "-o", "json", "--port", "257"], bpffs);
            let json: Result<serde_json::Value, _> = serde_json::from_str(&json);
            prop_assert!(json.is_ok(), "{json:?}");
            Ok(())
        });
        if let Err(error) = ran {
            panic!("{error}");
        }
    });
}
