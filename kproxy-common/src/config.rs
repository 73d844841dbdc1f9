//! Settings that the programs read at run time (map [`crate::abi::map::CONFIG`], one entry).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi;
use crate::flow::{flow_state, state, unassured};
use crate::net::Addr;
use crate::pod::{shared_layout, shared_numbers};

/// An address range: `addr & mask == base`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Range {
    /// First address of the range.
    pub base: Addr,
    /// Network mask, network byte order; all zero: the range is not set and matches nothing.
    pub mask: Addr,
}

impl Range {
    /// Whether the range is set. A mask is never zero in both of these words: those of IPv4 ranges
    /// have the third one set.
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.mask.0[2] | self.mask.0[0] != 0
    }

    /// Whether the range is set and holds `addr`.
    #[inline(always)]
    pub fn contains(&self, addr: &Addr) -> bool {
        let (b, m, a) = (&self.base.0, &self.mask.0, &addr.0);
        // The last words differ most often between addresses of a family.
        self.is_set()
            && a[3] & m[3] == b[3]
            && a[2] & m[2] == b[2]
            && a[1] & m[1] == b[1]
            && a[0] & m[0] == b[0]
    }

    /// From an address and a prefix length counted in the address's own family.
    pub fn new(ip: core::net::IpAddr, prefix_len: u8) -> Self {
        let bits = match ip {
            core::net::IpAddr::V4(_) => 96 + u32::from(prefix_len.min(32)),
            core::net::IpAddr::V6(_) => u32::from(prefix_len.min(128)),
        };
        let mut mask = [0u32; 4];
        for (i, word) in mask.iter_mut().enumerate() {
            let ones = bits.saturating_sub(32 * i as u32).min(32);
            *word = u32::MAX.checked_shl(32 - ones).unwrap_or(0).to_be();
        }
        let mut base = Addr::from(ip);
        for (word, m) in base.0.iter_mut().zip(mask) {
            *word &= m;
        }
        Self { base, mask: Addr(mask) }
    }
}

/// Ranges of ClusterIPs that the programs know, a family. Clusters have one, and a second while
/// they move to a larger one.
pub const SERVICE_RANGES: usize = 4;

/// The one entry of the CONFIG map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Cookie of the node's network namespace (SO_NETNS_COOKIE). NodePorts answer on loopback
    /// only there: in a pod, loopback is the pod's own. 0: the initial namespace.
    pub host_netns: u64,
    /// Pod ranges (`--cluster-cidr`, one a family): where all of them are among the source ranges of a
    /// frontend, any pod may open connections to it, whatever its address will be.
    pub cluster: [Range; 2],
    /// First source port that the programs give out, host byte order.
    pub snat_first: u16,
    /// Number of source ports that the programs give out; 0: they change no source, netfilter does.
    pub snat_count: u16,
    /// [`config_flags`].
    pub flags: u32,
    /// Ranges that ClusterIPs come from (ServiceCIDR objects), IPv4 then IPv6; those that are set
    /// come first.
    pub service: [[Range; SERVICE_RANGES]; 2],
    /// Seconds without a packet after which a flow is forgotten, by [`flow_state`].
    pub timeouts: [u32; flow_state::COUNT as usize],
    /// Elements of [`abi::map::UNASSURED`], a power of two.
    pub unassured: u32,
    /// Flows that may be assured.
    pub max_assured: u32,
}

impl Default for Config {
    /// Nothing is set but times and sizes, which are the default ones.
    fn default() -> Self {
        Self {
            host_netns: 0,
            cluster: [Range::default(); 2],
            snat_first: 0,
            snat_count: 0,
            flags: 0,
            service: [[Range::default(); SERVICE_RANGES]; 2],
            timeouts: state::TIMEOUTS,
            unassured: abi::DEFAULT_UNASSURED,
            max_assured: unassured::most_assured(abi::DEFAULT_FLOWS),
        }
    }
}

impl Config {
    /// Whether an address that is no frontend is a free address of a Service range: nobody may
    /// answer there (VER-16).
    #[inline(always)]
    pub fn is_free_service_address(&self, addr: &Addr) -> bool {
        let ranges = &self.service[if addr.is_v4() { 0 } else { 1 }];
        let mut i = 0;
        while i < SERVICE_RANGES {
            if !ranges[i].is_set() {
                return false;
            }
            if ranges[i].contains(addr) {
                return true;
            }
            i += 1;
        }
        false
    }
}

shared_numbers! {
    /// Bits of [`Config::flags`].
    pub mod config_flags {
        /// kproxy's nftables table is there to masquerade what carries the mark.
        pub const NETFILTER: u32 = 1;
        /// The socket path serves the node's own processes only; pods' packets are translated where
        /// they come in.
        pub const HOST_SOCKETS: u32 = 1 << 1;
        /// No hook gives sockets a backend: the packets of the node's own processes are translated.
        /// Without this, only those that the hooks do not see (SCTP).
        pub const NODE_PACKETS: u32 = 1 << 2;
        /// Some pods are opted out of the socket path: it asks whom a network namespace belongs to
        /// ([`crate::netns`]).
        pub const OPT_OUT: u32 = 1 << 3;
        /// Programs of another version come after these and open flows: these translate what belongs to their
        /// flows, and let everything else go on to those.
        pub const LEAVING: u32 = 1 << 4;
        /// Programs of another version come before these: what they have translated is left alone, here and where
        /// it leaves.
        pub const ARRIVING: u32 = 1 << 5;
        /// A program sees sockets close, so that their connections can be counted
        /// ([`crate::load`]).
        pub const COUNT_SOCKETS: u32 = 1 << 16;
    }
}

/// The source addresses that this node uses on one uplink (map [`crate::abi::map::UPLINKS`]).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Uplink {
    /// IPv4 address; unspecified (`::`): none.
    pub v4: Addr,
    /// IPv6 address; unspecified: none.
    pub v6: Addr,
    /// [`uplink_flags`].
    pub flags: u32,
}

shared_numbers! {
    /// Flags of [`Uplink`].
    pub mod uplink_flags {
        /// A tunnel: what is larger than its MTU may be given to it, since it is the outer packet
        /// that is cut into fragments.
        pub const OVERLAY: u32 = 1 << 0;
    }
}

shared_layout! {
    Range: 32 { base, mask }
    Config: 392 {
        host_netns, cluster, snat_first, snat_count, flags, service, timeouts, unassured, max_assured
    }
    Uplink: 36 { v4, v6, flags }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn ranges_hold_their_own_family_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (base, len, inside, outside) in [
            ("10.244.0.0", 16, "10.244.255.1", "10.245.0.0"),
            ("10.244.0.0", 16, "10.244.0.0", "::"),
            ("fd00:10:244::", 56, "fd00:10:244:ff::1", "fd00:10:244:100::1"),
            ("192.0.2.7", 32, "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0", 0, "8.8.8.8", "2001:db8::1"),
        ] {
            let range = Range::new(ip(base), len);
            assert!(range.contains(&ip(inside).into()), "{inside} in {base}/{len}");
            assert!(!range.contains(&ip(outside).into()), "{outside} not in {base}/{len}");
        }
        assert!(!Range::default().contains(&ip("0.0.0.0").into()));
    }

    #[test]
    fn ver_16_free_addresses_are_those_of_the_service_ranges() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut config = Config::default();
        assert!(!config.is_free_service_address(&ip("10.96.0.9").into()));
        config.service[0][0] = Range::new(ip("10.96.0.0"), 16);
        config.service[0][1] = Range::new(ip("10.112.0.0"), 24);
        config.service[1][0] = Range::new(ip("fd00:10:96::"), 112);
        for (addr, free) in [
            ("10.96.0.9", true),
            ("10.112.0.9", true),
            ("10.112.1.9", false),
            ("192.0.2.1", false),
            ("fd00:10:96::9", true),
            ("fd00:10:97::9", false),
        ] {
            assert_eq!(config.is_free_service_address(&ip(addr).into()), free, "{addr}");
        }
    }
}
