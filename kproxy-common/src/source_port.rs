//! Which source port a connection to a backend elsewhere gets.

use crate::net::{Addr, Port};

/// A hash of a connection's client and frontend port, for source ports.
#[inline(always)]
pub const fn hash(addr: &Addr, port: Port, frontend_port: Port) -> u32 {
    let ports = (port.0 as u32) << 16 | frontend_port.0 as u32;
    let words = &addr.0;
    let mixed = (words[0] ^ words[1].rotate_left(7) ^ words[2].rotate_left(17) ^ words[3])
        .wrapping_mul(0x85eb_ca6b)
        ^ ports.wrapping_mul(0x9e37_79b1);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 13)
}

/// The source port of the `attempt`-th try, of the `count` ports from `first` on. Two connections
/// that begin at the same port go on with different strides.
#[inline(always)]
pub const fn nth(first: u16, count: u16, seed: u32, attempt: u32) -> Port {
    let stride = (seed >> 16) | 1;
    let number = seed.wrapping_add(attempt.wrapping_mul(stride));
    // Said this way there is no panic for the verifier to find.
    match number.checked_rem(count as u32) {
        Some(offset) => Port::new(first.wrapping_add(offset as u16)),
        None => Port::new(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_stay_in_their_range_and_differ_between_tries() {
        let client = Addr::from_v4_word(0x0900_71cb);
        for (first, count) in [(1024, 28_976), (61_000, 4536), (65_535, 1)] {
            let mut seen = std::collections::BTreeSet::new();
            for attempt in 0..32 {
                let seed = hash(&client, Port::new(40_000), Port::new(30_080));
                let port = nth(first, count, seed, attempt).get();
                assert!(port >= first && port - first < count, "{port}");
                seen.insert(port);
            }
            assert!(seen.len() >= usize::from(count.min(30)), "{seen:?}");
        }
    }

    #[test]
    fn clients_begin_at_different_source_ports() {
        let begin = |port| {
            let seed = hash(&Addr::from_v4_word(7), Port::new(port), Port::new(80));
            nth(1024, 28_976, seed, 0)
        };
        let ports: std::collections::BTreeSet<_> = (30_000..31_000).map(begin).collect();
        assert!(ports.len() > 950, "{}", ports.len());
    }
}
