//! Which flows give way when others are opened: see [`kproxy_common::flow::unassured`].

use kproxy_common::flow::{FlowKey, flow_flags, unassured::Unassured};

use super::table;
use crate::{
    kernel::{random, ticks},
    maps::{CONFIG, UNASSURED},
};

/// Elements of which a new flow takes the oldest. With four, a flow is ended by one of the next 1 %
/// only once in 100 million times.
const LOOKED_AT: u32 = 4;
/// Elements that are looked at when the table is full.
const SEARCHED: u32 = 64;

/// Number of elements; 0: not known.
#[inline(always)]
fn count() -> u32 {
    CONFIG.get(0).map_or(0, |config| config.unassured)
}

/// Age of the flow in this element, in ticks; a free one is older than all.
#[inline(always)]
fn age(element: &Unassured, now: u32) -> u32 {
    if element.stamp == 0 { u32::MAX } else { now.wrapping_sub(element.stamp) }
}

/// The element for a new flow, whose last flow gives way. The number after it, 0: there is none.
#[inline(always)]
pub(super) fn take() -> u32 {
    let slot = oldest();
    clear(slot);
    slot
}

/// The oldest of a few elements: the number after it, 0: there is none.
#[inline(never)]
fn oldest() -> u32 {
    let (mask, now, number) = (count().wrapping_sub(1), ticks(), random());
    // Neighbours in memory, for the sake of the cache, would be neighbours in time after a while.
    let stride = (number >> 7) | 1;
    let (mut oldest, mut most) = (0, 0);
    let mut i = 0;
    while i < LOOKED_AT {
        let place = number.wrapping_add(i.wrapping_mul(stride)) & mask;
        if let Some(element) = UNASSURED.get(place) {
            let age = age(element, now);
            if age >= most {
                (oldest, most) = (place.wrapping_add(1), age);
            }
        }
        i += 1;
    }
    oldest
}

/// Ends the flow that has this element (number after it), unless it is assured. Whether there was one.
#[inline(never)]
fn clear(slot: u32) -> bool {
    let Some(element) = UNASSURED.get(slot.wrapping_sub(1)) else { return false };
    if element.stamp == 0 {
        return false;
    }
    let Some(value) = table::any(&element.key) else { return false };
    // The flow with this key may be another by now, with another element.
    let gives_way =
        value.slot == slot && value.flags & (flow_flags::REVERSE | flow_flags::ASSURED) == 0;
    if gives_way {
        // A copy: another CPU may write to the element.
        let key = element.key;
        table::forget(&key, value);
    }
    gives_way
}

/// Writes the flow with this forward key into the element.
#[inline(always)]
pub(super) fn set(slot: u32, key: &FlowKey) {
    if let Some(element) = UNASSURED.get_ptr_mut(slot.wrapping_sub(1)) {
        // SAFETY: a live element; of two CPUs that write at once both flows name it, and one is left
        // to its time.
        unsafe {
            (*element).key = *key;
            (*element).stamp = ticks();
        }
    }
}

/// An assured flow is so no more: it takes an element again, its own if it still has it. Returns the
/// number after it.
#[inline(never)]
pub(super) fn enter(key: &FlowKey, slot: u32) -> u32 {
    let is_its_own = |element: &Unassured| element.stamp != 0 && element.key == *key;
    let mut slot = slot;
    if !UNASSURED.get(slot.wrapping_sub(1)).is_some_and(is_its_own) {
        slot = take();
    }
    set(slot, key);
    slot
}

/// Makes room in a full table: one of the unassured flows ends. Whether there was one. The longer the
/// search the younger it may be.
#[inline(never)]
pub(super) fn make_room() -> bool {
    let (mask, now, start) = (count().wrapping_sub(1), ticks(), random());
    let mut left = SEARCHED;
    while left > 0 {
        left -= 1;
        let place = start.wrapping_add(left) & mask;
        let is_old = |element: &Unassured| now.wrapping_sub(element.stamp) >= left * 8;
        if UNASSURED.get(place).is_some_and(is_old) && clear(place.wrapping_add(1)) {
            return true;
        }
    }
    false
}
