//! Everything that programs and user space agree on, described: the snapshot of an ABI version is
//! made of it. A type or module that is missing here is reported by the compiler as unused.

use crate::service::Word;
use crate::{
    abi, affinity, config, counters, drop_reason, filter, flow, fragment, load, maglev, net, netns,
    ranges, service, socket,
};

pub use crate::pod::{Field, Layout, Numbers};

/// The types, by module.
pub const TYPES: &[&[Layout]] = &[
    net::LAYOUTS,
    config::LAYOUTS,
    service::LAYOUTS,
    flow::LAYOUTS,
    flow::unassured::LAYOUTS,
    flow::sweep::LAYOUTS,
    flow::adopt::LAYOUTS,
    socket::LAYOUTS,
    affinity::LAYOUTS,
    ranges::LAYOUTS,
    load::LAYOUTS,
    counters::LAYOUTS,
    fragment::LAYOUTS,
];

/// Numbers that stand alone in a module.
macro_rules! numbers {
    ($module:ident { $($name:ident),+ }) => {
        Numbers {
            name: stringify!($module),
            values: &[$((stringify!($name), $module::$name as u64)),+],
        }
    };
}

/// The numbers: what the fields and the elements of maps hold.
pub const NUMBERS: &[Numbers] = &[
    abi::kernel_feature::NUMBERS,
    config::config_flags::NUMBERS,
    config::uplink_flags::NUMBERS,
    service::frontend_flags::NUMBERS,
    service::service_flags::NUMBERS,
    service::slot_flags::NUMBERS,
    service::empty_verdict::NUMBERS,
    flow::flow_flags::NUMBERS,
    flow::flow_state::NUMBERS,
    affinity::client_kind::NUMBERS,
    load::counted::NUMBERS,
    netns::netns_verdict::NUMBERS,
    fragment::state::NUMBERS,
    fragment::note_flags::NUMBERS,
    drop_reason::NUMBERS,
    WORD,
    numbers!(abi { MARK_MASQUERADE }),
    numbers!(counters { NO_SERVICE }),
    numbers!(filter {
        BITS,
        FLOW_ELEMENTS,
        FRESH,
        STALE,
        POD_FLOWS,
        POD_FLOWS_WANTED,
        POD_FLOWS_ANSWERED,
        POD_FLOWS_OF_NODE
    }),
    numbers!(fragment { INJECTED_HEAD }),
    numbers!(maglev { PER_SLOT, SMALL_SET }),
    numbers!(ranges { ID_BITS }),
    numbers!(service { MAX_EXTRA }),
];

/// Types that no map which a later version may go on with is made of: settings, which are written anew at
/// each start, and what programs and daemon of one start tell each other.
const PASSING_TYPES: &[&str] = &[
    "Range",
    "Config",
    "Uplink",
    "SweepQuery",
    "Adopted",
    "AdoptQuery",
    "SocketQuery",
    "First",
    "Note",
    "Injection",
];
/// Modules of numbers that such types are about, and those of which a later version may know more.
const PASSING_NUMBERS: &[&str] = &[
    "kernel_feature",
    "config_flags",
    "uplink_flags",
    "netns_verdict",
    "state",
    "note_flags",
    "DropReason",
    "abi",
    "fragment",
];

/// What the maps mean that a version may take over from another one, as a number (FNV-1a of all names, places
/// and values): where it is the same, the maps are.
pub fn meaning() -> u64 {
    let mut sum = Sum(0xcbf2_9ce4_8422_2325);
    let types = TYPES.iter().copied().flatten();
    for layout in types.filter(|layout| !PASSING_TYPES.contains(&layout.name)) {
        sum.add(layout.name, layout.size as u64);
        for field in layout.fields {
            sum.add(field.name, field.offset as u64);
            sum.add("", field.size as u64);
        }
    }
    for numbers in NUMBERS.iter().filter(|numbers| !PASSING_NUMBERS.contains(&numbers.name)) {
        for (name, value) in numbers.values {
            sum.add(numbers.name, 0);
            sum.add(name, *value);
        }
    }
    sum.0
}

struct Sum(u64);

impl Sum {
    fn add(&mut self, name: &str, number: u64) {
        // A byte that no name holds keeps two names apart.
        for byte in name.bytes().chain([0xff]).chain(number.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// The bits of a service's word that each part of it takes.
const WORD: Numbers = Numbers {
    name: "Word",
    values: &[
        ("first", Word { first: u32::MAX, count: 0, generation: 0 }.pack()),
        ("count", Word { first: 0, count: u16::MAX, generation: 0 }.pack()),
        ("generation", Word { first: 0, count: 0, generation: u16::MAX }.pack()),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_there() {
        for name in PASSING_TYPES {
            let found = TYPES.iter().copied().flatten().any(|layout| layout.name == *name);
            assert!(found, "{name}");
        }
        for name in PASSING_NUMBERS {
            assert!(NUMBERS.iter().any(|numbers| numbers.name == *name), "{name}");
        }
    }

    #[test]
    fn the_sum_tells_names_and_numbers_apart() {
        let of = |parts: &[(&str, u64)]| {
            let mut sum = Sum(1);
            parts.iter().for_each(|(name, number)| sum.add(name, *number));
            sum.0
        };
        assert_ne!(of(&[("ab", 1)]), of(&[("a", 1), ("b", 1)]));
        assert_ne!(of(&[("a", 1)]), of(&[("a", 2)]));
        assert_eq!(meaning(), meaning());
    }
}
