//! Everything that programs and user space agree on, described: the snapshot of an ABI version is
//! made of it. A type or module that is missing here is reported by the compiler as unused.

use crate::service::Word;
use crate::{
    abi, affinity, config, counters, drop_reason, filter, flow, fragment, load, maglev, net, netns,
    ranges, service, socket, trace,
};

pub use crate::pod::{Field, Kind, Layout, Numbers};

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
    trace::LAYOUTS,
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
    trace::outcome::NUMBERS,
    trace::trace_hook::NUMBERS,
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

/// A map whose contents, or some of them, another version may go on with.
pub struct MapLayout {
    /// Its name.
    pub name: &'static str,
    /// Name of its key's type: that of a [`Layout`] or of an integer.
    pub key: &'static str,
    /// The same of its value.
    pub value: &'static str,
    /// The [`Numbers`] without which its contents mean nothing. Those that fields hold ([`HELD`]) need not be
    /// the same.
    pub depends_on: &'static [&'static str],
}

/// Those whose contents have a meaning of their own, and the settings.
pub const MAPS: &[MapLayout] = &[
    of(abi::map::FRONTENDS, "FrontendKey", "FrontendValue", &[]),
    of(abi::map::SERVICES, "u32", "Service", &["Word", "empty_verdict", "maglev", "service"]),
    of(abi::map::SLOTS, "u32", "Slot", &["maglev", "service"]),
    of(abi::map::FILTER, "u32", "u64", &["filter"]),
    of(abi::map::NAMES, "u32", "Name", &[]),
    of(abi::map::FLOWS, "FlowKey", "FlowValue", &[]),
    of(abi::map::UNASSURED, "u32", "Unassured", &[]),
    of(abi::map::ASSURED, "u32", "u64", &[]),
    of(abi::map::FLOW_FILTER, "u32", "u64", &["filter"]),
    of(abi::map::COUNTERS, "u32", "ServiceCounters", &[]),
    of(abi::map::DROPS, "DropKey", "u64", &["counters"]),
    of(abi::map::SOCKETS, "u32", "SocketState", &["Word"]),
    of(abi::map::AFFINITY, "AffinityKey", "AffinityValue", &[]),
    of(abi::map::RANGES, "RangeData", "u32", &["ranges"]),
    of(abi::map::LOAD, "LoadKey", "u64", &[]),
    of(abi::map::CONFIG, "u32", "Config", &[]),
];

const fn of(
    name: &'static str,
    key: &'static str,
    value: &'static str,
    depends_on: &'static [&'static str],
) -> MapLayout {
    MapLayout { name, key, value, depends_on }
}

/// What a field holds whose numbers have names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Bits.
    Bits,
    /// One of the values.
    Value,
}

/// Fields that hold named numbers: type, field, [`Numbers`], and how. Another version may have other numbers for
/// the same names.
pub const HELD: &[(&str, &str, &str, Holds)] = &[
    ("FrontendValue", "flags", "frontend_flags", Holds::Bits),
    ("Service", "flags", "service_flags", Holds::Bits),
    ("Slot", "flags", "slot_flags", Holds::Bits),
    ("FlowValue", "flags", "flow_flags", Holds::Bits),
    ("FlowValue", "state", "flow_state", Holds::Value),
    ("DropKey", "reason", "DropReason", Holds::Value),
    ("AffinityKey", "kind", "client_kind", Holds::Value),
    ("LoadKey", "path", "counted", Holds::Value),
    ("Config", "flags", "config_flags", Holds::Bits),
];

/// Fields that earlier versions (from 3 on) do not have, and that mean by 0 what was so before. All others are
/// needed: what lacks one is not gone on with.
pub const ADDED: &[(&str, &str)] =
    if cfg!(feature = "other-layout") { &[("FlowValue", "other")] } else { &[] };

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
    fn what_is_named_is_there() {
        let layout = |name: &str| TYPES.iter().copied().flatten().find(|of| of.name == name);
        let has_field = |of: &str, field: &str| {
            layout(of).is_some_and(|of| of.fields.iter().any(|other| other.name == field))
        };
        let has_numbers = |name: &str| NUMBERS.iter().any(|numbers| numbers.name == name);
        for MapLayout { name, key, value, depends_on } in MAPS {
            for of in [key, value] {
                assert!(["u32", "u64"].contains(of) || layout(of).is_some(), "{name}: {of}");
            }
            assert!(depends_on.iter().all(|numbers| has_numbers(numbers)), "{name}");
        }
        for (of, field, numbers, _) in HELD {
            assert!(has_field(of, field) && has_numbers(numbers), "{of}.{field}");
        }
        assert!(ADDED.iter().all(|(of, field)| has_field(of, field)));
        let described = |name: &&str| MAPS.iter().any(|map| map.name == *name);
        assert!(abi::map::handed_on().all(|name| described(&name)));
    }
}
