//! Guards the layouts that programs and user space share: what an [`ABI_VERSION`] means is written
//! down in `tests/abi/v<ABI_VERSION>.txt` and never changes. A new daemon takes over the pins of an
//! old one only when both mean the same by them.
//!
//! A line is a subject and its parts: `FlowValue.flags: offset 40, size 2`. A new name for the same
//! thing is the one change to write into a file of a version that is out.

use std::collections::BTreeMap;

use aya_obj::{Object, generated::bpf_map_type};
use kproxy_common::{
    abi::{ABI_VERSION, map},
    layouts,
};

#[test]
fn layouts_change_with_the_abi_version_only() {
    let path = format!("{}/tests/abi/v{ABI_VERSION}.txt", env!("CARGO_MANIFEST_DIR"));
    let now = [types(), numbers(), maps()].concat().join("\n") + "\n";
    match std::fs::read_to_string(&path) {
        Ok(recorded) => {
            let changes = changes(&recorded, &now);
            assert!(
                changes.is_empty(),
                "not what version {ABI_VERSION} of the ABI is:\n{}\nraise ABI_VERSION in \
                 kproxy-common/src/abi.rs, then run with KPROXY_ABI_WRITE=1 to write v{}.txt",
                changes.join("\n"),
                ABI_VERSION + 1
            );
        }
        Err(_) if std::env::var_os("KPROXY_ABI_WRITE").is_some_and(|value| value == "1") => {
            let mut file = std::fs::File::create_new(&path).unwrap();
            std::io::Write::write_all(&mut file, now.as_bytes()).unwrap();
        }
        Err(error) => panic!("{path}: {error}; run with KPROXY_ABI_WRITE=1 to write it"),
    }
}

fn types() -> Vec<String> {
    let mut lines = Vec::new();
    for layout in layouts::TYPES.iter().copied().flatten() {
        lines.push(format!("type {}: size {}", layout.name, layout.size));
        for field in layout.fields {
            let (name, offset, size) = (field.name, field.offset, field.size);
            lines.push(format!("{}.{name}: offset {offset}, size {size}", layout.name));
        }
    }
    lines
}

fn numbers() -> Vec<String> {
    let line = |of: &str, (name, value): &(&str, u64)| format!("{of}.{name}: value {value:#x}");
    let lines = |numbers: &layouts::Numbers| {
        numbers.values.iter().map(|number| line(numbers.name, number)).collect::<Vec<_>>()
    };
    layouts::NUMBERS.iter().flat_map(lines).collect()
}

fn maps() -> Vec<String> {
    let object = Object::parse(kproxy::dataplane::OBJECT).unwrap();
    let mut lines = Vec::new();
    for (names, pinned) in [(&map::PINNED[..], "yes"), (&map::UNPINNED[..], "no")] {
        for name in names {
            let map = &object.maps[*name];
            lines.push(format!(
                "map {name}: type {:?}, key size {}, value size {}, entries {}, flags {:#x}, \
                 pinned {pinned}",
                bpf_map_type::try_from(map.map_type()).ok().unwrap(),
                map.key_size(),
                map.value_size(),
                map.max_entries(),
                map.map_flags(),
            ));
        }
    }
    lines.sort();
    lines
}

/// Each difference of two snapshots in words.
fn changes(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (parts(old), parts(new));
    let mut changes = Vec::new();
    for (subject, was) in &old {
        let Some(is) = new.get(subject) else {
            changes.push(format!("{subject}: gone"));
            continue;
        };
        if was.len() != is.len() {
            changes.push(format!("{subject}: {} → {}", was.join(", "), is.join(", ")));
            continue;
        }
        let changed = was.iter().zip(is).filter(|(was, is)| was != is);
        changes.extend(changed.map(|(was, is)| {
            let value = is.rsplit(' ').next().unwrap_or(is);
            format!("{subject}: {was} → {value}")
        }));
    }
    let added = new.keys().filter(|subject| !old.contains_key(*subject));
    changes.extend(added.map(|subject| format!("{subject}: new")));
    changes
}

/// The parts of each subject.
fn parts(snapshot: &str) -> BTreeMap<&str, Vec<&str>> {
    let line = |line| {
        let (subject, parts) = str::split_once(line, ": ")?;
        Some((subject, parts.split(", ").collect()))
    };
    snapshot.lines().filter_map(line).collect()
}

#[test]
fn a_field_that_moves_is_named() {
    let old = "type A: size 8\nA.x: offset 0, size 2\nA.y: offset 2, size 2\n";
    let new = "type A: size 8\nA.x: offset 0, size 4\nA.y: offset 4, size 2\nA.z: offset 6, size 2";
    assert_eq!(changes(old, new), ["A.x: size 2 → 4", "A.y: offset 2 → 4", "A.z: new"],);
}

#[test]
fn a_flag_of_another_bit_is_named() {
    let old = "flow_flags.FIN: value 0x8\nflow_flags.RST: value 0x10\n";
    let new = "flow_flags.FIN: value 0x8\nflow_flags.RST: value 0x20\n";
    assert_eq!(changes(old, new), ["flow_flags.RST: value 0x10 → 0x20"]);
}

#[test]
fn maps_that_change_or_go_are_named() {
    let old = "map A: key size 4, value size 52\nmap B: key size 4, value size 8\n";
    let new = "map A: key size 4, value size 56\n";
    assert_eq!(changes(old, new), ["map A: value size 52 → 56", "map B: gone"]);
    assert_eq!(changes(new, old), ["map A: value size 56 → 52", "map B: new"]);
}

#[test]
fn the_same_in_another_order_is_no_change() {
    let old = "type A: size 8\ntype B: size 4\n";
    assert!(changes(old, "type B: size 4\ntype A: size 8\n").is_empty());
}
