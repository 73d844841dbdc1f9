//! Makes packets and reads them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Type, Icmpv6Type, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    icmpv4, icmpv6,
};
use kproxy_common::flow::track::segment_flags as flags;

/// What a TCP packet of a test is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tcp {
    Syn,
    SynAck,
    Ack,
    FinAck,
    Rst,
}

pub(crate) const PAYLOAD: &[u8] = b"odd payload";
/// Sequence number of the SYN of either end, and of what follows it and the data that it bears.
const ISN: u32 = 1000;
const NEXT_SEQ: u32 = ISN + 1 + PAYLOAD.len() as u32;

impl Tcp {
    /// Numbers with which packets of both directions make a connection, whatever comes first: both ends
    /// begin with the same one, and send their data again and again.
    pub(crate) const fn segment(self) -> Segment {
        let (flags, seq) = match self {
            Self::Syn => (flags::SYN, ISN),
            Self::SynAck => (flags::SYN | flags::ACK, ISN),
            Self::Ack => (flags::ACK, NEXT_SEQ),
            Self::FinAck => (flags::FIN | flags::ACK, NEXT_SEQ),
            Self::Rst => (flags::RST | flags::ACK, NEXT_SEQ),
        };
        Segment { flags, seq, ack: NEXT_SEQ, data: PAYLOAD.len() as u32 }
    }
}

/// What a TCP packet says beside its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Segment {
    /// Those of [`flags`].
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    /// If the flag is set.
    pub(crate) ack: u32,
    /// Bytes of data.
    pub(crate) data: u32,
}

impl Segment {
    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number that follows.
    pub(crate) const fn end(&self) -> u32 {
        let marks = self.has(flags::SYN) as u32 + self.has(flags::FIN) as u32;
        self.seq.wrapping_add(self.data).wrapping_add(marks)
    }
}

fn ethernet(from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0; 6]);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} and {to} are of different families"),
    }
}

/// A TCP packet with correct checksums.
pub(crate) fn tcp(from: &str, to: &str, what: Tcp) -> Vec<u8> {
    tcp_with(from.parse().unwrap(), to.parse().unwrap(), &what.segment())
}

/// A TCP packet with these flags, numbers and so much data.
pub(crate) fn tcp_with(from: SocketAddr, to: SocketAddr, segment: &Segment) -> Vec<u8> {
    let mut step = ethernet(from.ip(), to.ip()).tcp(from.port(), to.port(), segment.seq, 64_000);
    if segment.has(flags::SYN) {
        step = step.syn();
    }
    if segment.has(flags::ACK) {
        step = step.ack(segment.ack);
    }
    if segment.has(flags::FIN) {
        step = step.fin();
    }
    if segment.has(flags::RST) {
        step = step.rst();
    }
    let data: Vec<u8> = PAYLOAD.iter().copied().cycle().take(segment.data as usize).collect();
    let mut packet = Vec::new();
    step.write(&mut packet, &data).unwrap();
    packet
}

/// A TCP packet with so many bytes of data that must not be fragmented.
pub(crate) fn tcp_of(from: &str, to: &str, bytes: usize) -> Vec<u8> {
    let segment = Segment { data: bytes as u32, ..Tcp::Ack.segment() };
    tcp_with(from.parse().unwrap(), to.parse().unwrap(), &segment)
}

/// An ICMP error of `from` about `packet`: the network is unreachable, or there is no route.
pub(crate) fn icmp_about(from: &str, to: &str, packet: &[u8]) -> Vec<u8> {
    let step = ethernet(from.parse().unwrap(), to.parse().unwrap());
    let mut error = Vec::new();
    let inside = &packet[14..];
    match from.parse().unwrap() {
        IpAddr::V4(_) => step
            .icmpv4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Network))
            .write(&mut error, inside),
        IpAddr::V6(_) => step
            .icmpv6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::NoRoute))
            .write(&mut error, inside),
    }
    .unwrap();
    error
}

/// Time to live or hop limit.
pub(crate) fn ttl_of(packet: &[u8]) -> u8 {
    packet[if packet[14] >> 4 == 4 { 22 } else { 21 }]
}

/// The packet with another time to live or hop limit.
pub(crate) fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    if packet[14] >> 4 == 4 {
        return with_header(packet, |header| header.time_to_live = ttl);
    }
    let mut packet = packet.to_vec();
    packet[21] = ttl;
    packet
}

/// The IPv4 packet with its header changed.
pub(crate) fn with_header(packet: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (mut header, _) = Ipv4Header::from_slice(&packet[14..]).unwrap();
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    packet[14..34].copy_from_slice(&header.to_bytes());
    packet
}

/// A UDP packet with correct checksums.
pub(crate) fn udp(from: &str, to: &str) -> Vec<u8> {
    udp_with(from, to, PAYLOAD)
}

/// A UDP packet with so many bytes of data.
pub(crate) fn udp_of(from: &str, to: &str, bytes: usize) -> Vec<u8> {
    udp_with(from, to, &vec![7; bytes])
}

fn udp_with(from: &str, to: &str, data: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut packet = Vec::new();
    ethernet(from.ip(), to.ip()).udp(from.port(), to.port()).write(&mut packet, data).unwrap();
    packet
}

/// Source and destination of a packet; panics on a wrong checksum.
pub(crate) fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let sliced = SlicedPacket::from_ethernet(packet).expect("a whole packet");
    let (from, to): (IpAddr, IpAddr) = match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
            (header.source.into(), header.destination.into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("an ARP packet"),
    };
    match sliced.transport.expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let sum = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), tcp.payload())
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), tcp.payload())
                }
                _ => unreachable!("one header, one family"),
            };
            assert_eq!(header.checksum, sum.unwrap(), "TCP checksum");
            ((from, header.source_port).into(), (to, header.destination_port).into())
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), udp.payload())
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), udp.payload())
                }
                _ => unreachable!("one header, one family"),
            };
            if header.checksum != 0 {
                assert_eq!(header.checksum, sum.unwrap(), "UDP checksum");
            }
            ((from, header.source_port).into(), (to, header.destination_port).into())
        }
        other => panic!("unexpected transport {other:?}"),
    }
}
