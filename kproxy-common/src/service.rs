//! Frontends, services and their backend slots.
//!
//! ```text
//! FRONTENDS {address, port, protocol} ─▶ service index (one for each class of sender)
//! SERVICES  [index]  ─▶ word {first slot, count, generation} + cold fields
//! SLOTS     [first .. first + count] ─▶ backends
//! ```
//!
//! A service port has an id; its two backend sets are the services `2 * id` (cluster) and
//! `2 * id + 1` (local to this node). A changed set gets a new run of slots and then one 64-bit
//! store of the word: all frontends switch at once and no reader ever sees a mix.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Addr, Port};
use crate::pod::{shared_layout, shared_numbers};

/// What clients dial.
///
/// Three forms: `{address, port, protocol}` is a frontend; `{unspecified, port, protocol}` is a
/// NodePort on every address of this node of that family; `{address, 0, 0}` says what is known of
/// the address itself (see [`frontend_flags::NODE_ADDRESS`], [`frontend_flags::SERVICE_ADDRESS`]).
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
pub struct FrontendKey {
    /// Frontend address.
    pub addr: Addr,
    /// Frontend port, 0 in an address entry.
    pub port: Port,
    /// IP protocol number, 0 in an address entry.
    pub proto: u8,
    /// Always 0.
    pub pad: u8,
}

impl FrontendKey {
    /// Key of a frontend.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, proto: u8) -> Self {
        Self { addr, port, proto, pad: 0 }
    }

    /// Key of the entry that describes an address as a whole.
    #[inline(always)]
    pub const fn address(addr: Addr) -> Self {
        Self::new(addr, Port(0), 0)
    }

    /// Whether this is an address entry and no frontend.
    #[inline(always)]
    pub const fn is_address(&self) -> bool {
        self.port.0 == 0 && self.proto == 0
    }
}

/// What a frontend leads to.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrontendValue {
    /// Service index for senders inside: pods and this node.
    pub internal: u32,
    /// Service index for senders outside the cluster.
    pub external: u32,
    /// [`frontend_flags`].
    pub flags: u32,
}

shared_numbers! {
    /// Bits of [`FrontendValue::flags`].
    pub mod frontend_flags {
        /// A ClusterIP frontend.
        pub const CLUSTER_IP: u32 = 1;
        /// A NodePort frontend (its address is the unspecified one).
        pub const NODE_PORT: u32 = 1 << 1;
        /// An externalIP frontend.
        pub const EXTERNAL_IP: u32 = 1 << 2;
        /// A load-balancer ingress address.
        pub const LOAD_BALANCER: u32 = 1 << 3;
        /// Open to the sources that a range of the service port holds (see [`crate::ranges`]).
        pub const SOURCE_RANGES: u32 = 1 << 4;
        /// The ranges hold this node: its processes may connect from an address of the kernel's
        /// choice.
        pub const NODE_ALLOWED: u32 = 1 << 5;
        /// Address entry: the address belongs to this node, NodePorts answer on it.
        pub const NODE_ADDRESS: u32 = 1 << 8;
        /// Address entry: a ClusterIP; ports without a frontend are refused (VER-16, VER-17).
        pub const SERVICE_ADDRESS: u32 = 1 << 9;
    }
}

/// One backend set of a service port.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Service {
    /// The published [`Word`]. User space stores it with release order after the slots; programs
    /// read it in one load.
    pub word: u64,
    /// [`service_flags`].
    pub flags: u32,
    /// Session affinity timeout in seconds, 0 for none.
    pub affinity_seconds: u32,
}

shared_numbers! {
    /// Bits of [`Service::flags`].
    pub mod service_flags {
        /// The entry belongs to a service port. A free entry keeps its generation, so that a later
        /// set of the same index is not taken for the old one.
        pub const IN_USE: u32 = 1;
        /// New connections get a random backend. Without this and the next two: each in its turn.
        pub const RANDOM: u32 = 1 << 1;
        /// New connections get the one of two random backends that has fewer open connections.
        pub const LEAST_CONNECTIONS: u32 = 1 << 2;
        /// New connections get the backend that the set's table has for the client, once the run
        /// has one ([`slot_flags::TABLE`]).
        pub const MAGLEV: u32 = 1 << 3;
    }
}

/// The decoded form of [`Service::word`]: bits 0–31 first slot, 32–47 count, 48–63 generation.
///
/// With a count of 0 the first-slot field holds an [`EmptyVerdict`] instead, so that "no backend
/// is left, refuse" becomes visible in the same store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Word {
    /// First slot of the run.
    pub first: u32,
    /// Slots in the run.
    pub count: u16,
    /// Raised by one, wrapping, at each change of the set.
    pub generation: u16,
}

impl Word {
    /// Most backends one set can hold.
    pub const MAX_BACKENDS: usize = u16::MAX as usize;

    /// From the stored form.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self { first: word as u32, count: (word >> 32) as u16, generation: (word >> 48) as u16 }
    }

    /// To the stored form.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.first as u64 | (self.count as u64) << 32 | (self.generation as u64) << 48
    }
}

shared_numbers! {
    /// What happens to a new connection when a set is empty (first-slot field of an empty
    /// [`Word`]).
    pub mod empty_verdict {
        /// Refuse: no endpoint anywhere (VER-01).
        pub const REJECT: u32 = 0;
        /// Drop: a Local policy and no endpoint on this node (VER-04, VER-07).
        pub const DROP: u32 = 1;
    }
}

/// One backend of a run. The slots of a run are sorted by [`Slot::order`], each backend once.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Slot {
    /// Backend address.
    pub addr: Addr,
    /// Backend port.
    pub port: Port,
    /// [`slot_flags`].
    pub flags: u16,
    /// In the first slot of a run: so many slots after the run's [`Word::count`] belong to it too.
    /// They hold UDP endpoints that take nothing new and keep what they have. Elsewhere 0.
    pub extra: u32,
}

/// Most [`Slot::extra`] slots of a run.
pub const MAX_EXTRA: u32 = 32;

impl Slot {
    /// What a run is sorted by: address, then port, as numbers.
    #[inline(always)]
    pub const fn order(&self) -> [u64; 3] {
        Self::order_of(&self.addr, self.port)
    }

    /// [`Self::order`] of the slot with this backend.
    #[inline(always)]
    pub const fn order_of(addr: &Addr, port: Port) -> [u64; 3] {
        let (high, low) = addr.number();
        [high, low, port.get() as u64]
    }
}

shared_numbers! {
    /// Bits of [`Slot::flags`].
    pub mod slot_flags {
        /// The endpoint runs on this node.
        pub const LOCAL: u16 = 1;
        /// In the first slot of a run: a lookup table follows the run (see [`crate::maglev`]).
        pub const TABLE: u16 = 1 << 1;
    }
}

/// Service index of the cluster-wide set of service port `id`.
pub const fn cluster_index(id: u32) -> u32 {
    id * 2
}

/// Service index of the node-local set of service port `id`.
pub const fn local_index(id: u32) -> u32 {
    id * 2 + 1
}

/// Id of the service port that service `index` belongs to.
pub const fn service_port_id(index: u32) -> u32 {
    index / 2
}

/// Room for `namespace/name:port`: three DNS labels of at most 63 bytes and two separators.
pub const NAME_LEN: usize = 192;

/// The name of a service port. Pinned so that the debug CLI works without the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Name {
    /// `namespace/name:port` in UTF-8 (`namespace/name` for the unnamed port), zero-filled.
    pub text: [u8; NAME_LEN],
    /// IP protocol number.
    pub proto: u8,
    /// IP version: 4 or 6. The families of a dual-stack Service are service ports of their own.
    pub family: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

shared_layout! {
    FrontendKey: 20 { addr, port, proto, pad }
    FrontendValue: 12 { internal, external, flags }
    Service: 16 { word, flags, affinity_seconds }
    Slot: 24 { addr, port, flags, extra }
    Name: 196 { text, proto, family, pad }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_round_trip() {
        for word in [
            Word::default(),
            Word { first: u32::MAX, count: 0, generation: 7 },
            Word { first: 12_345, count: u16::MAX, generation: u16::MAX },
        ] {
            assert_eq!(Word::unpack(word.pack()), word);
        }
    }
}
