//! Where the fields of headers lie: offsets in bytes from the start of each header.

/// Ethernet (IEEE 802.3): the addresses are all that is touched.
pub(crate) mod ethernet {
    pub(crate) const LEN: usize = 14;
}

/// IPv4 (RFC 791 section 3.1).
pub(crate) mod ipv4 {
    /// Version, and header length in words of 32 bits.
    pub(crate) const VERSION_IHL: usize = 0;
    pub(crate) const TOTAL_LENGTH: usize = 2;
    pub(crate) const IDENTIFICATION: usize = 4;
    /// Flags and fragment offset.
    pub(crate) const FRAGMENT: usize = 6;
    pub(crate) const TTL: usize = 8;
    pub(crate) const PROTOCOL: usize = 9;
    pub(crate) const CHECKSUM: usize = 10;
    pub(crate) const SRC: usize = 12;
    pub(crate) const DST: usize = 16;
    /// Without options.
    pub(crate) const LEN: usize = 20;

    /// [`VERSION_IHL`] of a header without options.
    pub(crate) const NO_OPTIONS: u8 = 0x45;
    /// Bits of [`FRAGMENT`], as they lie there.
    pub(crate) const DO_NOT_FRAGMENT: u16 = 0x4000u16.to_be();
    pub(crate) const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
    pub(crate) const FRAGMENT_OFFSET: u16 = 0x1fffu16.to_be();
    /// Not 0 for every fragment.
    pub(crate) const IS_FRAGMENT: u16 = MORE_FRAGMENTS | FRAGMENT_OFFSET;
}

/// IPv6 (RFC 8200 section 3).
pub(crate) mod ipv6 {
    pub(crate) const PAYLOAD_LENGTH: usize = 4;
    pub(crate) const NEXT_HEADER: usize = 6;
    pub(crate) const HOP_LIMIT: usize = 7;
    pub(crate) const SRC: usize = 8;
    pub(crate) const DST: usize = 24;
    pub(crate) const LEN: usize = 40;
}

/// TCP, UDP and SCTP begin with their ports.
pub(crate) mod ports {
    pub(crate) const SRC: usize = 0;
    pub(crate) const DST: usize = 2;
}

/// TCP (RFC 9293 section 3.1).
pub(crate) mod tcp {
    pub(crate) const SEQUENCE: usize = 4;
    pub(crate) const ACKNOWLEDGEMENT: usize = 8;
    /// Header length in words of 32 bits, in the upper half of the byte.
    pub(crate) const DATA_OFFSET: usize = 12;
    pub(crate) const FLAGS: usize = 13;
    pub(crate) const CHECKSUM: usize = 16;
    /// Without options.
    pub(crate) const LEN: usize = 20;

    pub(crate) use kproxy_common::flow::track::segment_flags::{ACK, FIN, RST, SYN};
}

/// UDP (RFC 768).
pub(crate) mod udp {
    pub(crate) const CHECKSUM: usize = 6;
    pub(crate) const LEN: usize = 8;
}

/// SCTP's common header, and the type of the first chunk behind it (RFC 9260 section 3).
pub(crate) mod sctp {
    /// Verification tag.
    pub(crate) const TAG: usize = 4;
    pub(crate) const CHECKSUM: usize = 8;
    pub(crate) const LEN: usize = 12;
    /// Of the first chunk.
    pub(crate) const CHUNK_TYPE: usize = 12;
    /// Initiate tag of an INIT or INIT ACK that is the first chunk.
    pub(crate) const INITIATE_TAG: usize = 16;
    /// Bytes of an INIT chunk up to and with its initiate tag.
    pub(crate) const INIT_WITH_TAG: usize = 8;

    pub(crate) const INIT: usize = 1;
    pub(crate) const INIT_ACK: usize = 2;
    pub(crate) const ABORT: usize = 6;
    pub(crate) const SHUTDOWN: usize = 7;
    pub(crate) const SHUTDOWN_ACK: usize = 8;
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443), errors: the packet that they are about follows.
pub(crate) mod icmp {
    pub(crate) const TYPE: usize = 0;
    pub(crate) const CHECKSUM: usize = 2;
    pub(crate) const LEN: usize = 8;
}
