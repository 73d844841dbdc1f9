//! Fragments that come before the first one of their packet, which has the ports. Nothing can be kept
//! back in a program: it sends a copy to the daemon, which injects it again once the first one has come.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::FlowKey;
use crate::net::Port;
use crate::pod::{shared_layout, shared_numbers};

/// What is known of a packet's first fragment (map [`crate::abi::map::FRAGMENTS`]). The key is that of
/// the fragments: addresses and protocol, with the identification where the ports would be, and 1 in
/// `pad[0]` where packets leave by a device. A packet that is a stranger where it comes in may be
/// translated where it leaves.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct First {
    /// Its ports, source and destination.
    pub ports: [Port; 2],
    /// One of [`state`].
    pub state: u32,
    /// Seconds of CLOCK_MONOTONIC at which that was so.
    pub seen: u32,
}

shared_numbers! {
    /// Values of [`First::state`].
    pub mod state {
        /// It has not come, others have.
        pub const AWAITED: u32 = 0;
        /// It was translated, so are the others.
        pub const OURS: u32 = 1;
        /// It was not.
        pub const STRANGER: u32 = 2;
    }
}

/// Seconds after which a packet is given up by whoever puts it together (`net.ipv4.ipfrag_time`): its
/// identification may be that of another one by then.
pub const MEMORY: u32 = 30;

/// What a program tells the daemon (ring buffer [`crate::abi::map::EARLY`], in a [`Record`]).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Note {
    /// Time in nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// Key of the packet's fragments.
    pub key: FlowKey,
    /// Index of the device.
    pub device: u32,
    /// skb->mark.
    pub mark: u32,
    /// [`note_flags`].
    pub flags: u32,
    /// Length of the copy, 0: there is none. The record may be longer.
    pub len: u32,
}

/// A note with room for a copy.
#[repr(C)]
pub struct Record<const ROOM: usize> {
    /// The note.
    pub note: Note,
    /// The copy, [`Note::len`] bytes of it.
    pub copy: [u8; ROOM],
}

shared_numbers! {
    /// Bits of [`Note::flags`].
    pub mod note_flags {
        /// Seen where packets leave by the device, not where they come in.
        pub const EGRESS: u32 = 1;
        /// The copy begins with the IP header, not with an Ethernet header.
        pub const NO_ETHERNET: u32 = 1 << 1;
        /// No copy, but word that the first fragment has been translated: all copies of its packet
        /// can be, now.
        pub const FIRST: u32 = 1 << 2;
        /// The packet itself was dropped: there is only the copy.
        pub const ONLY_COPY: u32 = 1 << 3;
    }
}

/// Bytes of a copy in a small and in a large record. Larger packets are not copied; they are rarer
/// than jumbo frames.
pub const COPY_BYTES: [usize; 2] = [1_984, 9_216];

/// Bytes of the ring buffer: some 500 small records.
pub const RING_BYTES: u32 = 1 << 20;

/// Copies that each CPU makes in a second, so that a flood of fragments keeps nobody busy.
pub const COPIES_A_SECOND: u32 = 10_000;

/// What the program [`crate::abi::program::INJECT`] is to do with the packet that it is run on
/// (`__sk_buff.cb`; device and mark are those of the context).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Injection {
    /// 1: into the device's ingress, 0: out of it.
    pub ingress: u32,
    /// So many bytes of the map [`crate::abi::map::INJECTED`] belong behind those of the packet, for
    /// which BPF_PROG_TEST_RUN takes less than a page.
    pub more: u32,
    /// Not 0: it is given up for this [`crate::drop_reason::DropReason`], which is to be counted.
    pub lost: u32,
}

/// Bytes of a packet that the program is run on; the rest is in the map.
pub const INJECTED_HEAD: usize = 2_048;
/// Bytes of the map's element. A power of two, which the verifier understands best.
pub const INJECTED_REST: usize = 8_192;

const _: () = assert!(COPY_BYTES[1] + 14 < INJECTED_HEAD + INJECTED_REST);

shared_layout! {
    First: 12 { ports, state, seen }
    Note: 64 { time, key, device, mark, flags, len }
    Injection: 12 { ingress, more, lost }
}
