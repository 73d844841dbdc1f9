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

/// The header checksum `old` after its header changed by `delta` (see [`difference`]):
/// HC' = ~(~HC + ~m + m'), RFC 1624 section 3.
#[inline(always)]
pub const fn apply(old: u16, delta: u32) -> u16 {
    let delta = fold(delta) as u32;
    !fold((!old) as u32 + delta)
}

/// The sum of these words.
#[inline(always)]
pub const fn sum<const N: usize>(words: &[u32; N]) -> u32 {
    let (mut sum, mut i) = (0u64, 0);
    while i < N {
        sum += words[i] as u64;
        i += 1;
    }
    fold64(sum)
}

/// By how much the sum of some words changes when they are replaced.
#[inline(always)]
pub const fn difference<const N: usize>(old: &[u32; N], new: &[u32; N]) -> u32 {
    // Complements of all old words.
    let (mut sum, mut i) = (N as u64 * u32::MAX as u64, 0);
    while i < N {
        sum = sum + new[i] as u64 - old[i] as u64;
        i += 1;
    }
    fold64(sum)
}

/// Folds the sum of fewer than 2^31 words of 32 bits.
#[inline(always)]
const fn fold64(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum + (sum >> 32)) as u32
}

/// The sum of two sums.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

/// The delta of an IPv4 header whose time to live (the first byte of its word) goes down by `hops`.
#[inline(always)]
pub const fn less_ttl(hops: u8) -> u32 {
    let word = u16::from_ne_bytes([hops, 0]);
    if hops == 0 { 0 } else { (!word) as u32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum of a header by its definition (RFC 1071).
    fn checksum(bytes: &[u8]) -> u16 {
        let total = bytes.chunks(2).map(|c| u32::from(u16::from_ne_bytes([c[0], c[1]]))).sum();
        !fold(total)
    }

    fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
        std::array::from_fn(|i| u32::from_ne_bytes(bytes[4 * i..][..4].try_into().unwrap()))
    }

    proptest! {
        #[test]
        fn a_difference_gives_the_sum_of_the_changed_header(
            mut header in prop::collection::vec(any::<u8>(), 20),
            addresses in any::<[u8; 8]>(),
            hops in 0u8..=1,
        ) {
            // A real header never sums to zero: the version field is not zero.
            header[0] = 0x45;
            header[8] = header[8].max(1);
            let old = checksum(&header);
            let delta = difference::<2>(&words(&header[12..]), &words(&addresses));
            header[12..].copy_from_slice(&addresses);
            header[8] -= hops;
            prop_assert_eq!(apply(old, add(delta, less_ttl(hops))), checksum(&header));
        }

        #[test]
        fn a_sum_is_that_of_the_words_of_16_bits(header in prop::collection::vec(any::<u8>(), 40)) {
            prop_assert_eq!(!fold(sum::<10>(&words(&header))), checksum(&header));
        }
    }
}
