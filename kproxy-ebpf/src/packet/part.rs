//! Which part of a packet this is: a number that is computed and not chosen, or the verifier would
//! walk everything that follows once for each.

/// All of it.
pub(crate) const WHOLE: u8 = 0;
/// The first fragment: its header is here.
pub(crate) const FIRST: u8 = 1;
/// Another fragment: nothing of the header is here.
pub(crate) const LATER: u8 = 2;

/// From the bits "more fragments" and the offset.
#[inline(always)]
pub(crate) const fn of(more: u32, offset: u32) -> u8 {
    let is_later = is_set(offset);
    ((is_later << 1) | (is_set(more) & !is_later)) as u8
}

/// 1 for any bits, else 0.
#[inline(always)]
const fn is_set(bits: u32) -> u32 {
    (bits | bits.wrapping_neg()) >> 31
}
