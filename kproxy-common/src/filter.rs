//! The address filter: one bit test that keeps everything that is no service off the hash tables.
//!
//! A Bloom filter with one hash: the bit of every frontend address and (while there are NodePorts)
//! of every node address is set. A clear bit proves that the address is no frontend; a set bit
//! only says "look it up".

use crate::net::{Addr, Port};

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

/// The bit of a NodePort, so that a packet from such a port of this node is told from others at a glance:
/// below [`BITS`]. As cheap as can be, since every datagram that this node sends is asked.
#[inline(always)]
pub const fn bit_of_node_port(port: Port, proto: u8) -> u32 {
    // TCP, UDP and SCTP differ in their last four bits.
    (port.0 as u32) << 4 | (proto & 15) as u32
}

/// Size of the flow filter in elements of eight bytes: one byte for each of 65,536 hashes.
pub const FLOW_ELEMENTS: u32 = 8192;

/// Byte of the flow filter for an address that a flow sends to.
pub const FRESH: u8 = 3;
/// The same, since before user space began to look whether there still is one.
pub const STALE: u8 = 1;

/// Element of the flow filter behind those of addresses, about flows that concern pod-facing ports.
pub const POD_FLOWS: u32 = FLOW_ELEMENTS;
/// Byte of [`POD_FLOWS`] that the programs set once a port has a flow to open. Until then ports have
/// none to look for.
pub const POD_FLOWS_WANTED: usize = 0;
/// Byte of [`POD_FLOWS`] that user space sets once every port has the program that translates answers.
/// Until then no port opens a flow.
pub const POD_FLOWS_ANSWERED: usize = 1;
/// Byte of [`POD_FLOWS`] that the programs set once a process of this node has a flow, whose answers may
/// come from a pod. Means nothing once [`POD_FLOWS_WANTED`] is set.
pub const POD_FLOWS_OF_NODE: usize = 2;

/// Element and byte of the flow filter for an address that packets of a flow are sent to: the
/// frontend's address on the way there, the client's on the way back. A zero byte proves that no
/// flow sends there, so traffic that is no Service's is spared the look at the flow table.
///
/// The programs set bytes with plain stores of [`FRESH`] (bits would need an atomic "or", which 5.10
/// lacks). User space makes them [`STALE`] from time to time, sets those of the flows that it finds, and
/// clears what is stale still; both by compare and exchange, so that a program's store is not lost.
#[inline(always)]
pub const fn flow_position(addr: &Addr) -> (u32, usize) {
    let hash = bit(addr) >> 4;
    (hash / 8, (hash % 8) as usize)
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
    fn node_ports_differ_in_the_filter() {
        let mut bits = std::collections::BTreeSet::new();
        for port in 0..=u16::MAX {
            bits.extend([6, 17, 132].map(|proto| bit_of_node_port(Port::new(port), proto)));
        }
        assert_eq!(bits.len(), 3 << 16);
        assert!(bits.last().is_some_and(|bit| *bit < BITS));
    }

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
