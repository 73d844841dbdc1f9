//! Flows that give way: those that were opened last, and those that are over.
//!
//! Every new flow takes an element of [`crate::abi::map::UNASSURED`], the oldest of a few that are
//! looked at, and the flow that had it ends, unless it has become assured meanwhile. So there are never
//! more unassured flows than elements, whoever opens them, and the oldest go first
//! (docs/decisions/0016-flows-that-give-way.md).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FlowKey;
use crate::pod::shared_layout;

/// A flow that may give way.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Unassured {
    /// Key of the forward entry.
    pub key: FlowKey,
    /// When it was opened or was over: the lower half of the kernel's ticks (jiffies). 0: the element
    /// is free.
    pub stamp: u32,
}

/// Elements for a flow table of so many entries (two a connection): at most half of them, and a power
/// of two, so that a mask picks one.
pub const fn elements(entries: u32) -> u32 {
    match (entries / 4).checked_ilog2() {
        Some(log) => 1 << log,
        None => 1,
    }
}

/// Flows that may be assured, so that the others always have an eighth of the table.
pub const fn most_assured(entries: u32) -> u32 {
    (entries / 2) - (entries / 16)
}

shared_layout! {
    Unassured: 44 { key, stamp }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unassured_flows_have_room_beside_the_assured_ones() {
        for entries in [2, 16, 128, 400, 524_288, u32::MAX] {
            let elements = elements(entries);
            assert!(elements.is_power_of_two());
            assert!(elements <= (entries / 4).max(1), "{entries}");
            assert!(most_assured(entries) <= entries / 2 - entries / 16);
        }
        assert_eq!((elements(400), most_assured(400)), (64, 175));
    }
}
