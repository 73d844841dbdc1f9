//! Source NAT, ICMP errors about it and what the programs answer themselves. The routes are those of
//! a network namespace of the test's own.

use std::{net::SocketAddr, process::Command};

use aya::util::KernelVersion;
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use kproxy_common::{
    abi::MARK_MASQUERADE,
    config::{Config, Uplink, uplink_flags},
    counters::NO_SERVICE,
    drop_reason::{DropReason, REFUSALS_A_SECOND},
    flow::flow_flags,
    net::proto::{SCTP, TCP, UDP},
    service::{empty_verdict, frontend_flags as kind},
};
use nix::sched::{CloneFlags, unshare};

use crate::harness::{
    DEVICE_MAC, NEXT, Programs, REDIRECT, Ran, SHOT, Tcp, ends, icmp_about, tcp, ttl_of, udp,
};
use crate::sctp;

pub(crate) const SERVICE: u32 = 2;

pub(crate) struct Family {
    pub(crate) client: &'static str,
    pub(crate) node_port: &'static str,
    node: &'static str,
    pub(crate) backend: &'static str,
    vip: &'static str,
    /// Somebody on the way.
    router: &'static str,
}

pub(crate) const FAMILIES: [Family; 2] = [
    Family {
        client: "203.0.113.9:40000",
        node_port: "192.0.2.1:30080",
        node: "192.0.2.1",
        backend: "10.244.2.5:8080",
        vip: "10.96.0.10:80",
        router: "192.0.2.254",
    },
    Family {
        client: "[2001:db8:9::9]:40000",
        node_port: "[2001:db8::1]:30080",
        node: "2001:db8::1",
        backend: "[fd00:10:244:2::5]:8080",
        vip: "[fd00:10:96::a]:80",
        router: "2001:db8::fe",
    },
];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Runs a test in a network namespace with one uplink, over which clients and other nodes are
/// reached, and one device with the MTU 1400 that leads to 10.244.3.0/24 and fd00:10:244:3::/64.
pub(crate) fn on_a_node(test: impl FnOnce(&mut Programs) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("namespaces need root");
        let script = "
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip link set lo up
            ip link add eth0 address 02:00:00:00:00:02 type veth peer eth0p
            ip link add flannel.1 mtu 1400 type veth peer flannelp
            for device in eth0 eth0p flannel.1 flannelp; do ip link set $device up; done
            ip addr add 192.0.2.1/24 dev eth0
            ip addr add 2001:db8::1/64 dev eth0 nodad
            ip addr add 10.244.1.0/32 dev flannel.1
            ip addr add fd00:10:244:1::/128 dev flannel.1 nodad
            ip route add default via 192.0.2.254
            ip route add default via 2001:db8::fe
            ip route add 10.244.3.0/24 via 192.0.2.3 dev flannel.1 onlink
            ip route add fd00:10:244:3::/64 dev flannel.1
        ";
        let done = Command::new("bash").args(["-ec", script]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let mut programs = Programs::load().on_device(index);
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap().into();
        programs.uplink(index, Uplink { v4: ip("192.0.2.1"), v6: ip("2001:db8::1"), flags: 0 });
        let overlay = nix::net::if_::if_nametoindex("flannel.1").unwrap();
        let (v4, v6) = (ip("10.244.1.0"), ip("fd00:10:244:1::"));
        programs.uplink(overlay, Uplink { v4, v6, flags: uplink_flags::OVERLAY });
        programs.configure(|config| Config {
            flags: 0,
            snat_first: 20_000,
            snat_count: 100,
            ..config
        });
        for family in &FAMILIES {
            for proto in [TCP, UDP] {
                let any = if family.node.contains(':') { "[::]" } else { "0.0.0.0" };
                let node_port = format!("{any}:30080");
                programs.frontend(&node_port, proto, kind::NODE_PORT, SERVICE, SERVICE);
                programs.frontend(family.vip, proto, kind::CLUSTER_IP, SERVICE, SERVICE);
            }
            programs.address(family.node, kind::NODE_ADDRESS);
            programs.address(&at(family.vip).ip().to_string(), kind::SERVICE_ADDRESS);
            programs.service(SERVICE, &[family.backend]);
        }
        test(&mut programs);
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A SYN comes in; once more where its port had to be cleared first.
pub(crate) fn dialled(programs: &mut Programs, packet: &[u8]) -> Ran {
    let ran = programs.ingress(packet);
    let clears = ran.action == NEXT && FAMILIES.iter().any(|f| at(f.backend) == ran.source());
    if clears { programs.ingress(packet) } else { ran }
}

/// What leaves for the backend; its source.
fn opened(programs: &mut Programs, family: &Family, packet: &[u8]) -> SocketAddr {
    programs.service(SERVICE, &[family.backend]);
    let ran = dialled(programs, packet);
    assert_eq!((ran.action, ran.mark), (REDIRECT, 0), "{:?}", programs.drops());
    assert_eq!(ran.destination(), at(family.backend));
    assert_eq!(ran.source().ip(), family.node.parse::<std::net::IpAddr>().unwrap());
    assert!((20_000..20_100).contains(&ran.source().port()));
    assert_eq!(ttl_of(&ran.packet), 63, "one hop less");
    ran.source()
}

#[test]
fn msq_06_ver_05_a_backend_elsewhere_sees_this_node_and_its_answers_go_back() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let (client, node_port) = (family.client, family.node_port);
            let request = [tcp(client, node_port, Tcp::Syn), udp(client, node_port)];
            for (i, request) in request.into_iter().enumerate() {
                let source = opened(programs, family, &request).to_string();
                let answer = if i == 0 {
                    tcp(family.backend, &source, Tcp::SynAck)
                } else {
                    udp(family.backend, &source)
                };
                let back = programs.ingress(&answer);
                assert_eq!((back.action, back.mark), (REDIRECT, 0));
                assert_eq!((back.source(), back.destination()), (at(node_port), at(client)));
                assert_eq!(ttl_of(&back.packet), 63);
                // The redirected packets pass the egress program too.
                let out = programs.egress(&back.packet);
                assert_eq!((out.action, out.ends()), (NEXT, back.ends()));
                // The same connection keeps its port.
                assert_eq!(opened(programs, family, &request).to_string(), source);
            }
        }
        assert_eq!(programs.drops(), []);
        assert_eq!(programs.counters(SERVICE).0, 4);
    });
}

#[test]
fn a_port_that_the_backend_holds_half_open_is_cleared_before_it_is_used_again() {
    on_a_node(|programs| {
        programs.configure(|config| Config { snat_count: 4, ..config });
        for family in &FAMILIES {
            let client = |n: u16| {
                let at = at(family.client);
                SocketAddr::new(at.ip(), n).to_string()
            };
            // Every port, and each answered.
            for n in 1..=40 {
                let syn = tcp(&client(n), family.node_port, Tcp::Syn);
                let source = opened(programs, family, &syn).to_string();
                programs.ingress(&tcp(family.backend, &source, Tcp::SynAck));
            }
            let syn = tcp(&client(1000), family.node_port, Tcp::Syn);
            let first = programs.ingress(&syn);
            // To the stack, in the backend's name: what it answers with a RST of the number expected.
            let (backend, own) = first.ends();
            assert_eq!((first.action, backend), (NEXT, at(family.backend)));
            assert_eq!(own.ip(), family.node.parse::<std::net::IpAddr>().unwrap());
            let Some(TransportSlice::Tcp(tcp_header)) =
                SlicedPacket::from_ethernet(&first.packet).unwrap().transport
            else {
                panic!()
            };
            assert!(tcp_header.syn() && tcp_header.ack() && !tcp_header.rst());
            assert_eq!(tcp_header.acknowledgment_number(), Tcp::Syn.segment().end());
            // The SYN again finds its flow.
            assert_eq!(opened(programs, family, &syn), own);
        }
    });
}

/// SCTP has no such RST; what it keeps of a half-open association is no sequence number.
#[test]
fn a_port_of_sctp_is_used_again_at_once() {
    on_a_node(|programs| {
        programs.configure(|config| Config { snat_count: 4, ..config });
        for family in &FAMILIES {
            let any = if family.node.contains(':') { "[::]:30080" } else { "0.0.0.0:30080" };
            programs.frontend(any, SCTP, kind::NODE_PORT, SERVICE, SERVICE);
            programs.service(SERVICE, &[family.backend]);
            for n in 1..=40 {
                let client = SocketAddr::new(at(family.client).ip(), n).to_string();
                let init = sctp::sctp(&client, family.node_port, sctp::INIT, 16);
                let there = programs.ingress(&init);
                assert_eq!(there.action, REDIRECT, "{n}: {:?}", programs.drops());
                let source = sctp::ends(&there.packet).0.to_string();
                programs.ingress(&sctp::sctp(family.backend, &source, sctp::INIT_ACK, 16));
            }
        }
    });
}

#[test]
fn a_challenge_goes_to_the_client_whose_port_the_node_gave_and_proves_nothing() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let (client, node_port) = (family.client, family.node_port);
            let syn = tcp(client, node_port, Tcp::Syn);
            let source = opened(programs, family, &syn).to_string();
            let states = |programs: &mut Programs| -> Vec<_> {
                programs
                    .flows()
                    .into_iter()
                    .map(|(_, value)| (value.state, value.last_seen))
                    .collect()
            };
            let before = states(programs);
            let challenge = tcp(family.backend, &source, Tcp::Ack);
            let back = programs.ingress(&challenge);
            assert_eq!((back.action, back.mark), (REDIRECT, 0));
            assert_eq!((back.source(), back.destination()), (at(node_port), at(client)));
            // The copy for the stack.
            programs.marked(MARK_MASQUERADE);
            let copy = programs.ingress(&challenge);
            programs.marked(0);
            assert_eq!(
                (copy.action, copy.mark, copy.ends()),
                (NEXT, 0, (at(family.backend), at(&source)))
            );
            assert_eq!(states(programs), before);
            // Dialled again, it has the same port.
            assert_eq!(opened(programs, family, &syn).to_string(), source);
        }
    });
}

#[test]
fn a_pod_that_forges_an_end_of_another_s_connection_is_left_to_the_stack() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let request = udp(family.client, family.node_port);
            let source = opened(programs, family, &request).to_string();
            let answer = udp(family.backend, &source);
            let error = icmp_about(family.router, family.node, &udp(&source, family.backend));
            for forged in [request, answer, error] {
                let ran = programs.run("kp_pod_ingress", &forged);
                // The harness fills in the device's own address.
                assert_eq!((ran.action, &ran.packet[6..]), (NEXT, &forged[6..]));
            }
        }
    });
}

#[test]
fn one_client_port_may_reach_one_backend_by_two_frontends_at_once() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let first = opened(programs, family, &tcp(family.client, family.node_port, Tcp::Syn));
            let second = opened(programs, family, &tcp(family.client, family.vip, Tcp::Syn));
            assert_ne!(first, second);
            for (source, frontend) in [(first, family.node_port), (second, family.vip)] {
                let answer = tcp(family.backend, &source.to_string(), Tcp::SynAck);
                assert_eq!(programs.ingress(&answer).source(), at(frontend));
            }
        }
    });
}

#[test]
fn source_ports_run_out_for_one_backend_and_come_back() {
    on_a_node(|programs| {
        let family = &FAMILIES[0];
        programs.configure(|config| Config { snat_count: 4, ..config });
        let client = |port: u16| format!("203.0.113.9:{port}");
        let syn = |port| tcp(&client(port), family.node_port, Tcp::Syn);
        let mut sources = Vec::new();
        for port in 1..=4 {
            let source = opened(programs, family, &syn(port));
            programs.ingress(&tcp(family.backend, &source.to_string(), Tcp::SynAck));
            programs.ingress(&tcp(&client(port), family.node_port, Tcp::Ack));
            sources.push((port, source));
        }
        let mut ports: Vec<_> = sources.iter().map(|(_, source)| source.port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [20_000, 20_001, 20_002, 20_003]);
        assert_eq!(programs.ingress(&syn(5)).action, SHOT);
        assert_eq!(programs.drops(), [(SERVICE, DropReason::NoSourcePort, 1)]);
        // Those that live are not disturbed; another backend has ports of its own.
        let (port, source) = sources[0];
        let ack = programs.ingress(&tcp(&client(port), family.node_port, Tcp::Ack));
        assert_eq!((ack.action, ack.source()), (REDIRECT, source));
        programs.service(SERVICE, &["10.244.2.6:8080"]);
        assert_eq!(programs.ingress(&syn(6)).action, REDIRECT);
        // A connection that is over gives its port away.
        let (port, source) = sources[2];
        programs.ingress(&tcp(&client(port), family.node_port, Tcp::FinAck));
        programs.ingress(&tcp(family.backend, &source.to_string(), Tcp::FinAck));
        assert_eq!(opened(programs, family, &syn(5)), source);
    });
}

#[test]
fn a_backend_behind_a_device_that_is_no_uplink_keeps_the_clients_address() {
    on_a_node(|programs| {
        let overlay = nix::net::if_::if_nametoindex("flannel.1").unwrap();
        programs.forget_uplink(overlay);
        programs.service(SERVICE, &["10.244.3.5:8080"]);
        let ran = programs.ingress(&tcp("203.0.113.9:1", "192.0.2.1:30080", Tcp::Syn));
        assert_eq!((ran.action, ran.source()), (NEXT, at("203.0.113.9:1")));
        assert_eq!(ran.destination(), at("10.244.3.5:8080"));
    });
}

#[test]
fn a_backend_without_a_route_is_left_to_the_stack_and_a_lost_route_is_counted() {
    on_a_node(|programs| {
        let family = &FAMILIES[0];
        opened(programs, family, &tcp(family.client, family.node_port, Tcp::Syn));
        let done = Command::new("ip").args(["route", "del", "default"]).status().unwrap();
        assert!(done.success());
        let ran = programs.ingress(&tcp(family.client, family.node_port, Tcp::Ack));
        assert_eq!(ran.action, SHOT);
        assert_eq!(programs.drops(), [(SERVICE, DropReason::NoRoute, 1)]);
        // The stack tells the client that there is no route.
        let ran = programs.ingress(&tcp("203.0.113.9:7", family.node_port, Tcp::Syn));
        assert_eq!((ran.action, ran.destination()), (NEXT, at(family.backend)));
    });
}

/// Type and code, MTU, addresses and what is inside.
pub(crate) fn error_of(
    ran: &Ran,
) -> ((u8, u8), u32, (std::net::IpAddr, std::net::IpAddr), Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(&ran.packet).unwrap();
    let ends: (std::net::IpAddr, std::net::IpAddr) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (header.source.into(), header.destination.into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("an ARP packet"),
    };
    match sliced.transport.unwrap() {
        TransportSlice::Icmpv4(icmp) => {
            let header = icmp.header();
            let sum = match icmp.icmp_type() {
                Icmpv4Type::Unknown { .. } => panic!("an unknown type"),
                known => known.calc_checksum(icmp.payload()),
            };
            assert_eq!(header.checksum, sum, "ICMP checksum");
            let mtu = u32::from(u16::from_be_bytes(icmp.bytes5to8()[2..].try_into().unwrap()));
            ((icmp.type_u8(), icmp.code_u8()), mtu, ends, icmp.payload().to_vec())
        }
        TransportSlice::Icmpv6(icmp) => {
            let (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) = ends else { panic!() };
            let sum = match icmp.icmp_type() {
                Icmpv6Type::Unknown { .. } => panic!("an unknown type"),
                known => known.calc_checksum(from.octets(), to.octets(), icmp.payload()).unwrap(),
            };
            assert_eq!(icmp.header().checksum, sum, "ICMPv6 checksum");
            let mtu = u32::from_be_bytes(icmp.bytes5to8());
            ((icmp.type_u8(), icmp.code_u8()), mtu, ends, icmp.payload().to_vec())
        }
        other => panic!("unexpected transport {other:?}"),
    }
}

#[test]
fn what_is_too_big_or_too_old_is_answered_with_the_clients_own_packet() {
    // Older kernels do not say the route's MTU (route.rs): the least that every link has, then.
    let tells_mtu = KernelVersion::current().unwrap() >= KernelVersion::new(5, 12, 0);
    let route_mtu = if tells_mtu { 1400 } else { 1280 };
    on_a_node(move |programs| {
        for (family, backend) in FAMILIES.iter().zip(["10.244.3.5:80", "[fd00:10:244:3::5]:80"]) {
            let v6 = family.node.contains(':');
            let (client, node_port) = (at(family.client), at(family.node_port));
            programs.service(SERVICE, &[backend]);
            let syn = tcp(family.client, family.node_port, Tcp::Syn);
            assert_eq!(programs.ingress(&syn).action, REDIRECT);
            let mut big = crate::harness::tcp_of(family.client, family.node_port, 1400);
            let ran = programs.ingress(&big);
            assert_eq!(ran.action, REDIRECT);
            let (kind, mtu, ends, inside) = error_of(&ran);
            assert_eq!((kind, mtu), (if v6 { (2, 0) } else { (3, 4) }, route_mtu));
            assert_eq!(ends, (node_port.ip(), client.ip()));
            // The first bytes of the packet as the client has sent it.
            assert_eq!(inside, big[14..14 + inside.len()]);
            assert!(inside.len() >= if v6 { 48 } else { 28 });

            // One hop left.
            big.truncate(0);
            let old = crate::harness::with_ttl(&syn, 1);
            let (kind, _, ends, inside) = error_of(&programs.ingress(&old));
            assert_eq!(kind, if v6 { (3, 0) } else { (11, 0) });
            assert_eq!(
                (ends, inside.as_slice()),
                ((node_port.ip(), client.ip()), &old[14..14 + inside.len()])
            );
        }
    });
}

/// The tunnel cuts what it makes of it. Elsewhere the sender is told (networks::large in the lab).
#[test]
fn what_may_be_fragmented_goes_to_an_overlay_whatever_its_mtu() {
    on_a_node(|programs| {
        let family = &FAMILIES[0];
        programs.service(SERVICE, &["10.244.3.5:80"]);
        let datagram = crate::harness::udp_of(family.client, family.node_port, 1450);
        let datagram = crate::harness::with_header(&datagram, |ip| ip.dont_fragment = false);
        for _first_and_second in 0..2 {
            let ran = programs.ingress(&datagram);
            assert_eq!((ran.action, ran.destination()), (REDIRECT, at("10.244.3.5:80")));
            assert_eq!(ran.source().ip(), at("10.244.1.0:0").ip());
        }
        assert_eq!(programs.drops(), []);
    });
}

#[test]
fn ver_01_ver_16_refusals_are_answered_to_the_sender() {
    on_a_node(|programs| {
        programs.empty(SERVICE, empty_verdict::REJECT);
        for family in &FAMILIES {
            let unknown = family.vip.replace(":80", ":81");
            for to in [family.node_port, family.vip, &unknown] {
                let syn = tcp(family.client, to, Tcp::Syn);
                let ran = programs.ingress(&syn);
                assert_eq!((ran.action, ran.mark), (REDIRECT, 0));
                assert_eq!(ends(&ran.packet), (at(to), at(family.client)));
                let sliced = SlicedPacket::from_ethernet(&ran.packet).unwrap();
                let Some(TransportSlice::Tcp(reset)) = sliced.transport else { panic!() };
                assert!(reset.rst() && reset.ack() && !reset.syn());
                // The sequence number of the SYN, the SYN itself and the bytes that came with it.
                let acknowledged = 1000 + 1 + crate::harness::PAYLOAD.len() as u32;
                assert_eq!(
                    (reset.sequence_number(), reset.acknowledgment_number()),
                    (0, acknowledged)
                );
                assert_eq!((&ran.packet[..6], &ran.packet[6..12]), (&syn[6..12], &DEVICE_MAC[..]));

                let datagram = udp(family.client, to);
                let ran = programs.ingress(&datagram);
                assert_eq!(ran.action, REDIRECT);
                let (kind, _, ends, inside) = error_of(&ran);
                assert_eq!(kind, if family.node.contains(':') { (1, 4) } else { (3, 3) });
                assert_eq!(ends, (at(to).ip(), at(family.client).ip()));
                assert_eq!(inside, datagram[14..14 + inside.len()]);
            }
        }
        assert_eq!(
            programs.drops(),
            [(SERVICE, DropReason::NoBackend, 8), (NO_SERVICE, DropReason::UnknownPort, 4)]
        );
        assert_eq!(programs.flows(), []);
    });
}

#[test]
fn refusals_are_limited_and_never_go_to_groups() {
    on_a_node(|programs| {
        programs.empty(SERVICE, empty_verdict::REJECT);
        for nobody in ["224.0.0.1:1", "255.255.255.255:1", "0.0.0.0:1"] {
            assert_eq!(programs.ingress(&udp(nobody, "192.0.2.1:30080")).action, SHOT);
        }
        let syn = tcp("203.0.113.9:1", "192.0.2.1:30080", Tcp::Syn);
        // More than two seconds of every CPU's share, in less time than that.
        let flood =
            3 * REFUSALS_A_SECOND as usize * std::thread::available_parallelism().unwrap().get();
        let dropped = (0..flood).filter(|_| programs.ingress(&syn).action == SHOT).count();
        assert!(dropped > 0 && dropped < flood, "{dropped} of {flood}");
        let counted =
            programs.drops().iter().find(|row| row.1 == DropReason::RefusalLimit).unwrap().2;
        assert_eq!(counted as usize, dropped + 3);
    });
}

#[test]
fn icmp_errors_are_translated_in_both_directions() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            let (client, frontend) = (at(family.client), at(family.node_port));
            for (make, proto) in [
                (udp as fn(&str, &str) -> Vec<u8>, UDP),
                (|a: &str, b: &str| tcp(a, b, Tcp::Syn), TCP),
            ] {
                let what = format!("{proto} {client}");
                let request = make(family.client, family.node_port);
                let source = opened(programs, family, &request).to_string();
                // A router before the backend about the request as it was passed on.
                let error = icmp_about(family.router, family.node, &make(&source, family.backend));
                let ran = programs.ingress(&error);
                assert_eq!(ran.action, REDIRECT, "{what}");
                let (_, _, ends, inside) = error_of(&ran);
                assert_eq!(ends, (frontend.ip(), client.ip()), "{what}");
                assert_eq!(inside, request[14..14 + inside.len()], "{what}");
                // A router before the client about the answer.
                let answer = make(family.node_port, family.client);
                let error = icmp_about(family.router, family.node, &answer);
                let (_, _, ends, inside) = error_of(&programs.ingress(&error));
                assert_eq!(ends, (family.node.parse().unwrap(), at(family.backend).ip()), "{what}");
                let sent = make(family.backend, &source);
                assert_eq!(inside, sent[14..14 + inside.len()], "{what}");
            }
        }
        assert_eq!(programs.drops(), []);
    });
}

#[test]
fn icmp_errors_about_a_backend_on_this_node_are_translated_too() {
    on_a_node(|programs| {
        for family in &FAMILIES {
            programs.service(SERVICE, &[&format!("L{}", family.backend)]);
            let request = udp(family.client, family.node_port);
            assert_eq!(programs.ingress(&request).action, NEXT);
            // The backend, about the request: leaves by the uplink.
            let passed = udp(family.client, family.backend);
            let backend = at(family.backend).ip().to_string();
            let client = at(family.client).ip().to_string();
            let ran = programs.egress(&icmp_about(&backend, &client, &passed));
            let (_, _, ends, inside) = error_of(&ran);
            assert_eq!(
                (ran.action, ends),
                (NEXT, (at(family.node_port).ip(), at(family.client).ip()))
            );
            assert_eq!(inside, request[14..14 + inside.len()]);
            // A router, about the answer: comes in, and the sender stays who it is.
            let answer = udp(family.node_port, family.client);
            let ran = programs.ingress(&icmp_about(family.router, family.node, &answer));
            let (_, _, ends, inside) = error_of(&ran);
            assert_eq!(ends, (family.router.parse().unwrap(), at(family.backend).ip()));
            let sent = udp(family.backend, family.client);
            assert_eq!((ran.action, inside.as_slice()), (NEXT, &sent[14..14 + inside.len()]));
            // Errors about connections that are no flow pass as they are.
            let other = icmp_about(
                family.router,
                family.node,
                &udp(family.router_port().as_str(), family.client),
            );
            assert_eq!(programs.ingress(&other).packet[14..], other[14..]);
        }
    });
}

impl Family {
    fn router_port(&self) -> String {
        SocketAddr::new(self.router.parse().unwrap(), 9).to_string()
    }
}

/// flow_flags are what `kproxy dump flows` and the sweeper go by.
#[test]
fn entries_say_who_changes_the_source() {
    on_a_node(|programs| {
        opened(programs, &FAMILIES[0], &tcp(FAMILIES[0].client, FAMILIES[0].node_port, Tcp::Syn));
        let flags: Vec<u16> = programs.flows().iter().map(|(_, value)| value.flags).collect();
        assert!(flags.iter().all(|flags| flags & flow_flags::SNAT != 0), "{flags:?}");
        assert!(flags.iter().all(|flags| flags & flow_flags::MASQUERADE == 0), "{flags:?}");
    });
}
