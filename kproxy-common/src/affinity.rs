//! Session affinity: the backend that a client was given last, by service port.
//!
//! One entry for a client and a service port, whatever frontend it dials and whichever of the two
//! sets applies (AFF-01). The entry is only a wish: it counts while the set that applies holds the
//! backend (AFF-03, AFF-04) and the last new connection is no older than the service port's timeout
//! (AFF-02), both asked at each new connection. So a stale entry, even one of a service port that
//! had the same id before, never leads astray.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Addr, Port};
use crate::pod::{shared_layout, shared_numbers};
use crate::service::service_port_id;

/// Who is remembered, and for which service port.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AffinityKey {
    /// The client: an address, or a netns cookie in the first two words.
    pub client: Addr,
    /// Id of the service port; both of its sets share the entry.
    pub service_port: u32,
    /// [`client_kind`]: keeps a cookie from ever being equal to an address.
    pub kind: u32,
}

shared_numbers! {
    /// What [`AffinityKey::client`] holds.
    pub mod client_kind {
        /// The source address of a packet.
        pub const ADDRESS: u32 = 0;
        /// The cookie of the network namespace of a socket: when it connects, the socket has no
        /// source address yet, and one pod is one namespace.
        pub const NETNS: u32 = 1;
    }
}

/// A network namespace as a client.
#[inline(always)]
pub const fn netns_client(cookie: u64) -> Addr {
    Addr([cookie as u32, (cookie >> 32) as u32, 0, 0])
}

impl AffinityKey {
    /// Key of a client for the service port of a service index.
    #[inline(always)]
    pub const fn new(client: Addr, kind: u32, service: u32) -> Self {
        Self { client, service_port: service_port_id(service), kind }
    }

    /// The cookie, when the client is a network namespace.
    pub const fn netns(&self) -> Option<u64> {
        let words = &self.client.0;
        if self.kind == client_kind::NETNS {
            Some(words[0] as u64 | (words[1] as u64) << 32)
        } else {
            None
        }
    }
}

/// The backend that was given last, and when.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AffinityValue {
    /// Backend address.
    pub addr: Addr,
    /// Time of the last new connection: nanoseconds of CLOCK_MONOTONIC.
    pub last: u64,
    /// Backend port.
    pub port: Port,
    /// Always 0.
    pub pad: [u16; 3],
}

impl AffinityValue {
    /// Nanoseconds left until the client is forgotten, 0 when it is; `timeout` in seconds. Another
    /// CPU's clock may be a moment ahead.
    #[inline(always)]
    pub const fn left(&self, now: u64, timeout: u32) -> u64 {
        (timeout as u64 * 1_000_000_000).saturating_sub(now.saturating_sub(self.last))
    }
}

shared_layout! {
    AffinityKey: 24 { client, service_port, kind }
    AffinityValue: 32 { addr, last, port, pad }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;
    use crate::service::{cluster_index, local_index};

    #[test]
    fn aff_01_both_sets_share_an_entry_and_service_ports_do_not() {
        let client = Addr::from("192.0.2.7".parse::<IpAddr>().unwrap());
        let of = |service| AffinityKey::new(client, client_kind::ADDRESS, service);
        assert_eq!(of(cluster_index(7)), of(local_index(7)));
        assert_ne!(of(cluster_index(7)), of(cluster_index(8)));
    }

    #[test]
    fn a_namespace_is_never_an_address() {
        for cookie in [0, 1, 0xffff_0000_0000, u64::MAX] {
            let client = netns_client(cookie);
            let netns = AffinityKey::new(client, client_kind::NETNS, 4);
            assert_eq!(netns.netns(), Some(cookie));
            let address = AffinityKey::new(client, client_kind::ADDRESS, 4);
            assert_ne!(netns, address);
            assert_eq!(address.netns(), None);
        }
    }

    #[test]
    fn aff_02_the_timeout_runs_from_the_last_new_connection() {
        const SECOND: u64 = 1_000_000_000;
        let value = AffinityValue { last: 100 * SECOND, ..AffinityValue::default() };
        for (now, timeout, left) in [
            (100 * SECOND, 10, 10 * SECOND),
            (110 * SECOND - 1, 10, 1),
            (110 * SECOND, 10, 0),
            (99 * SECOND, 10, 10 * SECOND),
            (100 * SECOND + 86_400 * SECOND - 1, 86_400, 1),
        ] {
            assert_eq!(value.left(now, timeout), left, "{now} {timeout}");
        }
    }
}
