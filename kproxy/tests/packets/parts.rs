//! Fragments and IPv6 extension headers.

use std::net::SocketAddr;

use etherparse::Ipv4Header;

use crate::harness::{NEXT, Programs, Tcp, ends, tcp, udp, udp_of};
use crate::rows::programs;

/// Client, NodePort and backend of each family.
pub(crate) const ENDS: [[&str; 3]; 2] = [
    ["203.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080"],
    ["[2001:db8:9::9]:40000", "[2001:db8::1]:30080", "[fd00:10:244:1::5]:8080"],
];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn is_v4(packet: &[u8]) -> bool {
    packet[14] >> 4 == 4
}

/// The packet cut into fragments of 1000 bytes, as its sender would do it.
pub(crate) fn cut(packet: &[u8], id: u32) -> Vec<Vec<u8>> {
    cut_at(packet, id, 1000)
}

/// The packet cut into fragments of so many bytes, a multiple of 8.
pub(crate) fn cut_at(packet: &[u8], id: u32, bytes: usize) -> Vec<Vec<u8>> {
    let header = if is_v4(packet) { 34 } else { 54 };
    let chunks: Vec<&[u8]> = packet[header..].chunks(bytes).collect();
    let last = chunks.len() - 1;
    let fragment = |(i, chunk): (usize, &&[u8])| {
        let units = (i * bytes / 8) as u16;
        let mut fragment = packet[..header].to_vec();
        if is_v4(packet) {
            let (mut ip, _) = Ipv4Header::from_slice(&packet[14..]).unwrap();
            ip.identification = id as u16;
            ip.dont_fragment = false;
            ip.more_fragments = i < last;
            ip.fragment_offset = units.try_into().unwrap();
            ip.total_len = (20 + chunk.len()) as u16;
            ip.header_checksum = ip.calc_header_checksum();
            fragment[14..34].copy_from_slice(&ip.to_bytes());
        } else {
            let next = std::mem::replace(&mut fragment[20], 44);
            fragment[18..20].copy_from_slice(&(8 + chunk.len() as u16).to_be_bytes());
            let bits = units << 3 | u16::from(i < last);
            fragment.extend([next, 0]);
            fragment.extend(bits.to_be_bytes());
            fragment.extend(id.to_be_bytes());
        }
        fragment.extend(*chunk);
        fragment
    };
    chunks.iter().enumerate().map(fragment).collect()
}

/// What the receiver makes of fragments in order.
fn join(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = fragments[0].clone();
    if is_v4(&whole) {
        fragments[1..].iter().for_each(|fragment| whole.extend(&fragment[34..]));
        let (mut ip, _) = Ipv4Header::from_slice(&whole[14..]).unwrap();
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        ip.more_fragments = false;
        ip.total_len = (whole.len() - 14) as u16;
        ip.header_checksum = ip.calc_header_checksum();
        whole[14..34].copy_from_slice(&ip.to_bytes());
    } else {
        whole[20] = whole[54];
        whole.drain(54..62);
        fragments[1..].iter().for_each(|fragment| whole.extend(&fragment[62..]));
        let len = (whole.len() - 54) as u16;
        whole[18..20].copy_from_slice(&len.to_be_bytes());
    }
    whole
}

fn run(programs: &mut Programs, program: &str, fragments: &[Vec<u8>]) -> Vec<u8> {
    let translated = fragments.iter().map(|fragment| {
        let ran = programs.run(program, fragment);
        assert_eq!(ran.action, NEXT);
        ran.packet
    });
    join(&translated.collect::<Vec<_>>())
}

#[test]
fn ver_21_fragments_follow_their_first_one_in_both_directions() {
    for [client, node, backend] in ENDS {
        let mut programs = programs(&[&format!("L{backend}")]);
        for (id, bytes) in [(7, 1500), (8, 4000), (0x0102_0304, 2400)] {
            let request = cut(&udp_of(client, node, bytes), id);
            let there = run(&mut programs, "kp_ingress", &request);
            assert_eq!(ends(&there), (at(client), at(backend)));
            let answer = cut(&udp_of(backend, client, bytes), id + 1);
            let back = run(&mut programs, "kp_egress", &answer);
            assert_eq!(ends(&back), (at(node), at(client)));
        }
        assert_eq!(programs.counters(crate::rows::CLUSTER).0, 1, "one flow");
    }
}

#[test]
fn fragments_without_their_first_one_and_of_others_pass_untouched() {
    for [client, node, backend] in ENDS {
        let mut programs = programs(&[&format!("L{backend}")]);
        let fragments = cut(&udp_of(client, node, 3000), 7);
        let untouched = |programs: &mut Programs, packet: &Vec<u8>| {
            let ran = programs.ingress(packet);
            assert_eq!((ran.action, &ran.packet), (NEXT, packet));
        };
        untouched(&mut programs, &fragments[1]);
        programs.ingress(&fragments[0]);
        // Another packet of the same client, the same number from another, another protocol.
        untouched(&mut programs, &cut(&udp_of(client, node, 3000), 8)[1]);
        let other = client.replace(".9:", ".8:").replace("::9]", "::8]");
        untouched(&mut programs, &cut(&udp_of(&other, node, 3000), 7)[1]);
        let mut tcp = fragments[1].clone();
        let proto = if is_v4(&tcp) { 23 } else { 54 };
        tcp[proto] = 6;
        untouched(&mut programs, &tcp);
        assert_ne!(programs.ingress(&fragments[1]).packet, fragments[1]);
        assert_eq!(programs.drops(), []);
    }
}

/// An IPv6 packet with extension headers, each a number and its bytes of options.
fn extended(packet: &[u8], headers: &[(u8, usize)]) -> Vec<u8> {
    let mut next = packet[20];
    let mut chain = Vec::new();
    for (number, options) in headers.iter().rev() {
        let mut header = vec![next, (options / 8) as u8];
        // PadN.
        header.extend([1, (options + 4) as u8]);
        header.resize(options + 8, 0);
        header.extend(&chain);
        (next, chain) = (*number, header);
    }
    let mut extended = packet[..54].to_vec();
    extended[20] = next;
    let len = (packet.len() - 54 + chain.len()) as u16;
    extended[18..20].copy_from_slice(&len.to_be_bytes());
    extended.extend(chain);
    extended.extend(&packet[54..]);
    extended
}

#[test]
fn ipv6_extension_headers_are_walked_over() {
    let [_, [client, node, backend]] = ENDS;
    let mut programs = programs(&[&format!("L{backend}")]);
    for headers in
        [&[(0, 0)][..], &[(60, 16)], &[(0, 8), (43, 16)], &[(0, 0), (60, 0), (43, 0), (60, 64)]]
    {
        for (request, answer) in [
            (tcp(client, node, Tcp::Syn), tcp(backend, client, Tcp::SynAck)),
            (udp(client, node), udp(backend, client)),
        ] {
            let there = programs.ingress(&extended(&request, headers));
            assert_eq!(there.ends(), (at(client), at(backend)), "{headers:?}");
            let back = programs.egress(&extended(&answer, headers));
            assert_eq!(back.ends(), (at(node), at(client)), "{headers:?}");
        }
    }
    // More than anybody sends, an unknown one, one that is not there, one cut off.
    let many = extended(&udp(client, node), &[(60, 0); 6]);
    let unknown = extended(&udp(client, node), &[(0, 0), (139, 8)]);
    let mut missing = udp(client, node);
    missing[20] = 60;
    let mut short = extended(&udp(client, node), &[(60, 240)]);
    short.truncate(100);
    for packet in [many, unknown, missing, short] {
        let ran = programs.ingress(&packet);
        assert_eq!((ran.action, ran.packet), (NEXT, packet));
    }
}
