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

/// The bits of a service's word that each part of it takes.
const WORD: Numbers = Numbers {
    name: "Word",
    values: &[
        ("first", Word { first: u32::MAX, count: 0, generation: 0 }.pack()),
        ("count", Word { first: 0, count: u16::MAX, generation: 0 }.pack()),
        ("generation", Word { first: 0, count: 0, generation: u16::MAX }.pack()),
    ],
};
