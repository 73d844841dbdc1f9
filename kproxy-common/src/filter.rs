//! The address filter: one bit test that keeps everything that is no service off the hash tables.
//!
//! A Bloom filter with one hash: the bit of every frontend address and (while there are NodePorts)
//! of every node address is set. A clear bit proves that the address is no frontend; a set bit
//! only says "look it up".

use crate::net::Addr;

/// Size of the filter in bits (128 KiB): 50,000 addresses send 5 % of the others to the hash.
pub const BITS: u32 = 1 << 20;
/// Size of the filter in 64-bit words, the elements of the map.
pub const WORDS: u32 = BITS / 64;

/// The bit of an address: below [`BITS`].
#[inline(always)]
pub const fn bit(addr: &Addr) -> u32 {
    let words = &addr.0;
    // Fibonacci hashing; the odd constants keep neighbouring addresses apart.
    let mixed = (words[0].wrapping_mul(0x85eb_ca6b) ^ words[1])
        .wrapping_mul(0xc2b2_ae35)
        .wrapping_add(words[2])
        .wrapping_mul(0x27d4_eb2f)
        ^ words[3];
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x9e37_79b1);
    mixed >> (32 - BITS.trailing_zeros())
}

/// Index of the 64-bit word that holds `bit`, and the mask of the bit in it.
#[inline(always)]
pub const fn position(bit: u32) -> (u32, u64) {
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn a_service_range_spreads_over_the_filter() {
        let mut bits: Vec<u32> = (0..50_000u32)
            .map(|i| bit(&IpAddr::V4(Ipv4Addr::from(0x0a60_0000 + i)).into()))
            .collect();
        bits.sort_unstable();
        bits.dedup();
        assert!(bits.iter().all(|bit| *bit < BITS));
        assert!(bits.len() > 46_000, "{} different bits", bits.len());
    }
}
