//! SCTP (PKT-04): ports like TCP's, a checksum over everything behind the IP header.

use std::net::SocketAddr;

use etherparse::{IpNumber, PacketBuilder};
use kproxy_common::{
    drop_reason::DropReason,
    flow::state::is_over,
    net::proto::SCTP,
    service::{empty_verdict, frontend_flags},
};

use crate::harness::{NEXT, Programs, REDIRECT};
use crate::rows::{CLUSTER, programs};
use crate::snat::{FAMILIES, SERVICE, on_a_node};

const ENDS: [[&str; 3]; 2] = [
    ["203.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080"],
    ["[2001:db8:9::9]:40000", "[2001:db8::1]:30080", "[fd00:10:244:1::5]:8080"],
];
pub(crate) const INIT: u8 = 1;
pub(crate) const INIT_ACK: u8 = 2;
pub(crate) const DATA: u8 = 0;
pub(crate) const ABORT: u8 = 6;
pub(crate) const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const SHUTDOWN_COMPLETE: u8 = 14;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// RFC 9260 appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// The tag that either end has chosen: an INIT and its answer begin with it.
pub(crate) const TAG: u32 = 0x0707_0707;

/// A packet with one chunk and so many bytes of data, of an association that both ends have chosen the
/// same tag for.
pub(crate) fn sctp(from: &str, to: &str, chunk: u8, bytes: usize) -> Vec<u8> {
    sctp_tagged(from, to, if chunk == INIT { 0 } else { TAG }, chunk, &vec![7; bytes])
}

/// A packet with one chunk that bears this verification tag.
pub(crate) fn sctp_tagged(from: &str, to: &str, tag: u32, chunk: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![chunk, 0];
    bytes.extend((4 + data.len() as u16).to_be_bytes());
    bytes.extend(data);
    packet(from, to, tag, &bytes)
}

fn packet(from: &str, to: &str, tag: u32, chunks: &[u8]) -> Vec<u8> {
    let (from, to) = (at(from), at(to));
    let mut body = Vec::new();
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    body.extend(tag.to_be_bytes());
    body.extend([0; 4]);
    body.extend(chunks);
    let sum = crc32c(&body);
    body[8..12].copy_from_slice(&sum.to_le_bytes());
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0; 6]);
    let ip = match (from.ip(), to.ip()) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            link.ipv4(from.octets(), to.octets(), 64)
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            link.ipv6(from.octets(), to.octets(), 64)
        }
        _ => panic!("{from} and {to} are of different families"),
    };
    let mut packet = Vec::new();
    ip.write(&mut packet, IpNumber(SCTP), &body).unwrap();
    packet
}

/// Source and destination; panics on a wrong checksum.
pub(crate) fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let v4 = packet[14] >> 4 == 4;
    let (ip, body) = packet[14..].split_at(if v4 { 20 } else { 40 });
    let addr = |v4_at: usize, v6_at: usize| -> std::net::IpAddr {
        if v4 {
            <[u8; 4]>::try_from(&ip[v4_at..v4_at + 4]).unwrap().into()
        } else {
            <[u8; 16]>::try_from(&ip[v6_at..v6_at + 16]).unwrap().into()
        }
    };
    let mut zeroed = body.to_vec();
    zeroed[8..12].fill(0);
    assert_eq!(body[8..12], crc32c(&zeroed).to_le_bytes(), "SCTP checksum");
    let port = |i: usize| u16::from_be_bytes([body[i], body[i + 1]]);
    ((addr(12, 8), port(0)).into(), (addr(16, 24), port(2)).into())
}

fn with_sctp(backend: &str) -> Programs {
    let mut programs = programs(&[backend]);
    for node in ["0.0.0.0:30080", "[::]:30080"] {
        programs.frontend(node, SCTP, frontend_flags::NODE_PORT, CLUSTER, CLUSTER);
    }
    programs
}

fn are_over(programs: &mut Programs) -> bool {
    programs.flows().iter().all(|(_, value)| is_over(value.state))
}

#[test]
fn pkt_04_an_association_is_translated_in_both_directions() {
    for [client, node, backend] in ENDS {
        let mut programs = with_sctp(&format!("L{backend}"));
        // Without an INIT nothing is opened.
        let stray = sctp(client, node, DATA, 100);
        assert_eq!(programs.ingress(&stray).packet, stray);
        for (there, back, bytes) in
            [(INIT, INIT_ACK, 16), (DATA, DATA, 1), (DATA, DATA, 1300), (SHUTDOWN, SHUTDOWN_ACK, 4)]
        {
            let ran = programs.ingress(&sctp(client, node, there, bytes));
            assert_eq!(ran.action, NEXT, "{:?}", programs.drops());
            assert_eq!(ends(&ran.packet), (at(client), at(backend)));
            let ran = programs.egress(&sctp(backend, client, back, bytes));
            assert_eq!(ends(&ran.packet), (at(node), at(client)));
        }
        programs.ingress(&sctp(client, node, SHUTDOWN_COMPLETE, 0));
        assert!(are_over(&mut programs), "{:?}", programs.flows());
        // The same port opens a new one; an ABORT ends it.
        programs.ingress(&sctp(client, node, INIT, 16));
        programs.egress(&sctp(backend, client, INIT_ACK, 16));
        programs.ingress(&sctp(client, node, ABORT, 0));
        assert!(are_over(&mut programs));
        assert_eq!(programs.counters(CLUSTER).0, 2);
    }
}

#[test]
fn a_checksum_that_is_still_to_be_written_is_left_alone() {
    for [client, node, backend] in ENDS {
        let mut programs = with_sctp(&format!("L{backend}"));
        let mut packet = sctp(client, node, INIT, 16);
        let at_sum = if packet[14] >> 4 == 4 { 42 } else { 62 };
        packet[at_sum..at_sum + 4].fill(0);
        let ran = programs.ingress(&packet);
        assert_eq!(ran.packet[at_sum..at_sum + 4], [0; 4]);
        assert_eq!(ran.packet[at_sum - 6..at_sum - 4], 8080u16.to_be_bytes());
    }
}

/// The kernel keeps the chunks of several packets of data in a list behind the header and says
/// GSO_BY_FRAGS (include/linux/skbuff.h). Bytes pulled out of the list would be lost to it.
#[test]
fn several_packets_of_data_in_one_need_the_header_only() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let (client, node) = (family.client, family.node_port);
            let any = if node.starts_with('[') { "[::]:30080" } else { "0.0.0.0:30080" };
            programs.frontend(any, SCTP, frontend_flags::NODE_PORT, SERVICE, SERVICE);
            programs.service(SERVICE, &[family.backend]);
            let opened = programs.ingress(&sctp(client, node, INIT, 16));
            assert_eq!(opened.action, REDIRECT, "{:?}", programs.drops());
            let ran = programs.run_cut("kp_ingress", &packet(client, node, TAG, &[]), 0xffff);
            assert_eq!(ran.action, REDIRECT, "{:?}", programs.drops());
            assert_eq!(ends(&ran.packet), ends(&opened.packet));
        }
    });
}

#[test]
fn ver_01_an_init_without_backends_is_answered_with_port_unreachable() {
    for [client, node, _] in ENDS {
        let mut programs = with_sctp("L10.244.1.5:8080");
        programs.empty(CLUSTER, empty_verdict::REJECT);
        let init = sctp(client, node, INIT, 16);
        // The INIT's tag is among what comes back.
        let told = &init[14..14 + if init[14] >> 4 == 4 { 20 } else { 40 } + 12 + 8];
        let ran = programs.ingress(&init);
        assert_eq!(ran.action, REDIRECT);
        let sliced = etherparse::SlicedPacket::from_ethernet(&ran.packet).unwrap();
        use etherparse::{Icmpv4Type, Icmpv6Type, TransportSlice, icmpv4, icmpv6};
        match sliced.transport.unwrap() {
            TransportSlice::Icmpv4(icmp) => {
                let header = icmp.header();
                assert_eq!(
                    header.icmp_type,
                    Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port)
                );
                assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()));
                assert_eq!(icmp.payload(), told);
            }
            TransportSlice::Icmpv6(icmp) => {
                let header = icmp.header();
                assert_eq!(
                    header.icmp_type,
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port)
                );
                assert_eq!(icmp.payload(), told);
                let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else { panic!("no IPv6") };
                let (from, to) = (ip.header().source(), ip.header().destination());
                assert_eq!(
                    header.checksum,
                    header.icmp_type.calc_checksum(from, to, icmp.payload()).unwrap()
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(programs.drops(), [(CLUSTER, DropReason::NoBackend, 1)]);
    }
}
