//! Internet checksum arithmetic (RFC 1071, RFC 1624).
//!
//! Sums are over 16-bit words as they lie in memory: one's complement addition commutes with
//! swapping bytes (RFC 1071 section 2 (B)), so nothing is ever converted.

/// Folds a 32-bit sum to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The header checksum `old` after its header changed by `delta` (what `bpf_csum_diff` returns):
/// HC' = ~(~HC + ~m + m'), RFC 1624 section 3.
#[inline(always)]
pub const fn apply(old: u16, delta: u32) -> u16 {
    let delta = fold(delta) as u32;
    !fold((!old) as u32 + delta)
}

/// The sum of two sums.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

/// The delta of an IPv4 header whose time to live (the first byte of its word) goes down by `hops`.
#[inline(always)]
pub const fn less_life(hops: u8) -> u32 {
    let word = u16::from_ne_bytes([hops, 0]);
    if hops == 0 { 0 } else { (!word) as u32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(bytes: &[u8]) -> u16 {
        let total = bytes.chunks(2).map(|c| u32::from(u16::from_ne_bytes([c[0], c[1]]))).sum();
        !fold(total)
    }

    /// What bpf_csum_diff computes: the sum of `to` minus the sum of `from`.
    fn diff(from: &[u8], to: &[u8]) -> u32 {
        let add = |bytes: &[u8], flip: u16| -> u32 {
            bytes.chunks(2).map(|c| u32::from(u16::from_ne_bytes([c[0], c[1]]) ^ flip)).sum()
        };
        add(to, 0) + add(from, 0xffff)
    }

    proptest! {
        #[test]
        fn a_delta_gives_the_sum_of_the_changed_header(
            mut header in prop::collection::vec(any::<u8>(), 20),
            addr in any::<[u8; 4]>(),
            hops in 0u8..=1,
        ) {
            // A real header never sums to zero: the version field is not zero.
            header[0] = 0x45;
            header[8] = header[8].max(1);
            let old = sum(&header);
            let delta = add(diff(&header[16..20], &addr), less_life(hops));
            header[16..20].copy_from_slice(&addr);
            header[8] -= hops;
            prop_assert_eq!(apply(old, delta), sum(&header));
        }
    }
}
