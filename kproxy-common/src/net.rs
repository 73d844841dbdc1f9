//! Addresses, ports and protocols as the maps hold them. The only place that swaps bytes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::pod::shared_layout;

/// An IP address: 16 bytes in network byte order, IPv4 as v4-mapped IPv6 (`::ffff:a.b.c.d`,
/// RFC 4291 section 2.5.5.2). Kept as four words so that BPF compares and copies it in words.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Addr(pub [u32; 4]);

/// Third word of a v4-mapped address: the bytes `00 00 ff ff`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// The address whose IPv4 bytes, read in memory order, are `word`.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether this is an IPv4 (v4-mapped) address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// The IPv4 address as a word in memory order; meaningless unless [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// The address as a number of 128 bits, by which addresses are sorted: upper half, lower half.
    #[inline(always)]
    pub const fn number(&self) -> (u64, u64) {
        const fn join(upper: u32, lower: u32) -> u64 {
            (u32::from_be(upper) as u64) << 32 | u32::from_be(lower) as u64
        }
        (join(self.0[0], self.0[1]), join(self.0[2], self.0[3]))
    }

    /// Whether this is 0.0.0.0 or `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | d == 0 && (c == 0 || c == MAPPED)
    }

    /// The unspecified address of the same family: the frontend address of NodePorts, which
    /// stands for every address of this node.
    #[inline(always)]
    pub const fn unspecified_of_family(&self) -> Self {
        if self.is_v4() { Self::from_v4_word(0) } else { Self([0; 4]) }
    }

    /// The address itself; 127.0.0.1 for every loopback address of IPv4: each stands for the node.
    #[inline(always)]
    pub const fn of_node(&self) -> Self {
        if self.is_v4() && self.is_loopback() {
            Self::from_v4_word(u32::from_ne_bytes([127, 0, 0, 1]))
        } else {
            *self
        }
    }

    /// Whether this is 127.0.0.0/8 or ::1.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.0[3].to_ne_bytes()[0] == 127
        } else {
            self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1u32.to_be()
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self(words)
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() {
            return Self::V4(Ipv4Addr::from(addr.0[3].to_ne_bytes()));
        }
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(addr.0) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Self::V6(Ipv6Addr::from(octets))
    }
}

impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

/// A port number in network byte order.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Port(pub u16);

impl Port {
    /// From a port number as people write it.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The port number as people write it.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl core::fmt::Debug for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.get(), f)
    }
}

/// The word whose bytes are those of two halves, as they lie in memory one after the other.
#[inline(always)]
pub const fn join(first: u16, second: u16) -> u32 {
    // By shifts: of its bytes the compiler would make more.
    let (first, second) = (first as u32, second as u32);
    if cfg!(target_endian = "little") { first | second << 16 } else { first << 16 | second }
}

/// IP protocol numbers (IANA "Protocol Numbers").
pub mod proto {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

shared_layout! {
    Addr: 16 { 0 }
    Port: 2 { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.96.0.1", "127.0.0.1", "0.0.0.0", "::1", "::", "fd00:10:96::a"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
        }
    }

    #[test]
    fn loopback_and_unspecified_follow_the_family() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        assert!(addr("127.9.9.9").is_loopback() && addr("::1").is_loopback());
        assert!(!addr("10.0.0.127").is_loopback() && !addr("::").is_loopback());
        assert!(addr("0.0.0.0").is_unspecified() && addr("::").is_unspecified());
        assert!(!addr("0.0.0.1").is_unspecified() && !addr("::1").is_unspecified());
        assert!(!addr("::fffe:0:0").is_unspecified() && !addr("1::").is_unspecified());
        assert_eq!(addr("192.0.2.1").unspecified_of_family(), addr("0.0.0.0"));
        assert_eq!(addr("2001:db8::1").unspecified_of_family(), addr("::"));
        for (text, of_node) in
            [("127.9.9.9", "127.0.0.1"), ("::1", "::1"), ("192.0.2.1", "192.0.2.1")]
        {
            assert_eq!(addr(text).of_node(), addr(of_node));
        }
    }

    #[test]
    fn numbers_sort_as_addresses_do() {
        let sorted =
            ["0.0.0.1", "9.255.0.0", "10.0.0.2", "10.0.1.0", "2001:db8::ff", "2001:db8::1:0"];
        let numbers = sorted.map(|text| Addr::from(text.parse::<IpAddr>().unwrap()).number());
        assert!(numbers.is_sorted(), "{numbers:x?}");
    }

    #[test]
    fn ports_are_stored_in_network_order() {
        assert_eq!(Port::new(80).as_bytes(), [0, 80]);
        assert_eq!(Port::new(30080).get(), 30080);
    }
}
