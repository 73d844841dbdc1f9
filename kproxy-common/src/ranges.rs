//! Source ranges: who may open connections to the load-balancer addresses of a service port.
//!
//! The ranges of all service ports share one LPM trie. A frontend with
//! [`frontend_flags::SOURCE_RANGES`](crate::service::frontend_flags::SOURCE_RANGES) is open to a
//! source that some range of its service port holds, and to nobody while there is none.

use core::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::Range;
use crate::net::Addr;
use crate::pod::shared_layout;

/// What the trie matches, from its first bit: the service port as a whole, then the address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct RangeData {
    /// Id of the service port.
    pub service_port: u32,
    /// First address of the range; to look up: a source, or the first address of a range.
    pub addr: Addr,
}

/// Bits of [`RangeData::service_port`], which come first in every prefix.
pub const ID_BITS: u32 = 32;
/// Prefix length of one address.
pub const ADDRESS_BITS: u32 = ID_BITS + 128;

/// Prefix length in the trie of a range whose length is counted in its own family.
pub const fn prefix_len(ip: &IpAddr, len: u8) -> u32 {
    match ip {
        IpAddr::V4(_) => ID_BITS + 96 + len as u32,
        IpAddr::V6(_) => ID_BITS + len as u32,
    }
}

/// Prefix length that finds the ranges which hold the whole of `range`; `None` when it is not set.
#[inline(always)]
pub fn prefix_len_of(range: &Range) -> Option<u32> {
    let mask = &range.mask.0;
    if mask[0] | mask[2] == 0 {
        return None;
    }
    // The mask's ones are at its front, so their number is the length of the prefix.
    let ones = mask.iter().map(|word| word.count_ones()).sum::<u32>();
    Some(ID_BITS + ones)
}

shared_layout! {
    RangeData: 20 { service_port, addr }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_the_id_and_the_mapped_prefix() {
        for (text, len, want) in [
            ("10.244.0.0", 16, 32 + 96 + 16),
            ("0.0.0.0", 0, 32 + 96),
            ("192.0.2.7", 32, ADDRESS_BITS),
            ("fd00:10:244::", 48, 32 + 48),
            ("::1", 128, ADDRESS_BITS),
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(prefix_len(&ip, len), want, "{text}/{len}");
            assert_eq!(prefix_len_of(&Range::new(ip, len)), Some(want), "{text}/{len}");
        }
        assert_eq!(prefix_len_of(&Range::default()), None);
    }
}
