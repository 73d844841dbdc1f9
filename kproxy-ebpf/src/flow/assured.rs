//! How many flows are assured: no more than leave room for those that are not.

use crate::{
    kernel::add_atomically,
    maps::{ASSURED, CONFIG},
};

/// Counts one more, if there may be one.
#[inline(always)]
pub(super) fn join() -> bool {
    let (Some(config), Some(count)) = (CONFIG.get(0), ASSURED.get_ptr_mut(0)) else { return false };
    // SAFETY: a live element of eight-byte values; two CPUs at once may go one too far.
    unsafe {
        if core::ptr::read_volatile(count) as i64 >= i64::from(config.max_assured) {
            return false;
        }
        add_atomically(count.cast(), 1);
    }
    true
}

/// Counts one less.
#[inline(always)]
pub(super) fn leave() {
    if let Some(count) = ASSURED.get_ptr_mut(0) {
        // SAFETY: a live element of eight-byte values.
        unsafe { add_atomically(count.cast(), -1) };
    }
}
