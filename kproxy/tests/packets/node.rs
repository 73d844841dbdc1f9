//! Packets of the node's own processes: with `--socket-lb none`, and SCTP always.

use std::net::SocketAddr;

use etherparse::{SlicedPacket, TransportSlice};
use kproxy_common::{
    abi::MARK_MASQUERADE,
    config::{Config, Uplink, config_flags, uplink_flags},
    drop_reason::DropReason,
    net::proto::SCTP,
    service::{empty_verdict, frontend_flags as kind},
};

use crate::harness::{
    NEXT, Programs, REDIRECT, Ran, SHOT, Tcp, ends, knows_where_packets_come_from, tcp, ttl_of, udp,
};
use crate::sctp;
use crate::snat::{SERVICE, on_a_node};

/// By family: the node, its ClusterIP and NodePort, a backend elsewhere, one behind the overlay, and one
/// that is a process of the node itself.
struct Family {
    client: &'static str,
    vip: &'static str,
    node_port: &'static str,
    backend: &'static str,
    behind: &'static str,
    overlay: &'static str,
    itself: &'static str,
    loopback: [&'static str; 2],
}

const FAMILIES: [Family; 2] = [
    Family {
        client: "192.0.2.1:40000",
        vip: "10.96.0.10:80",
        node_port: "192.0.2.1:30080",
        backend: "10.244.2.5:8080",
        behind: "10.244.3.5:8080",
        overlay: "10.244.1.0",
        itself: "192.0.2.1:6443",
        loopback: ["127.0.0.1:40000", "127.9.9.9:30080"],
    },
    Family {
        client: "[2001:db8::1]:40000",
        vip: "[fd00:10:96::a]:80",
        node_port: "[2001:db8::1]:30080",
        backend: "[fd00:10:244:2::5]:8080",
        behind: "[fd00:10:244:3::5]:8080",
        overlay: "fd00:10:244:1::",
        itself: "[2001:db8::1]:6443",
        loopback: ["[::1]:40000", "[::1]:30080"],
    },
];
const LO: u32 = 1;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// [`on_a_node`] where no hook gives sockets a backend.
fn by_packets(test: impl Fn(&mut Programs, &Family) + Send + 'static) {
    on_a_node(move |programs| {
        programs.configure(|config| Config { flags: config_flags::NODE_PACKETS, ..config });
        for ip in ["127.0.0.1", "::1"] {
            programs.address(ip, kind::NODE_ADDRESS);
        }
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap().into();
        programs.uplink(LO, Uplink { v4: ip("192.0.2.1"), v6: ip("2001:db8::1"), flags: 0 });
        for family in &FAMILIES {
            test(programs, family);
        }
    });
}

fn both(from: &str, to: &str, flags: Tcp) -> [Vec<u8>; 2] {
    [tcp(from, to, flags), udp(from, to)]
}

fn overlay() -> u32 {
    nix::net::if_::if_nametoindex("flannel.1").unwrap()
}

/// What leaves for the backend; its source.
fn sent(programs: &mut Programs, program: &str, packet: &[u8], backend: &str) -> SocketAddr {
    let there = programs.run(program, packet);
    assert_eq!((there.action, there.mark), (REDIRECT, 0), "{:?}", programs.drops());
    assert_eq!(there.destination(), at(backend));
    assert!((20_000..20_100).contains(&there.source().port()), "a port of no socket");
    assert_eq!(ttl_of(&there.packet), 64, "it begins here");
    // It is seen by the program once more, and nothing is left to do.
    let again = programs.run(program, &there.packet);
    assert_eq!((again.action, again.ends()), (NEXT, there.ends()));
    there.source()
}

fn is_handed(back: &Ran, vip: &str, client: &str) {
    assert_eq!((back.action, back.ends()), (REDIRECT, (at(vip), at(client))));
}

#[test]
fn msq_02_a_process_of_the_node_reaches_a_backend_elsewhere_from_the_nodes_address() {
    by_packets(|programs, Family { client, vip, backend, behind, overlay, .. }| {
        for (to, wanted) in [(backend, at(client).ip()), (behind, overlay.parse().unwrap())] {
            programs.service(SERVICE, &[to]);
            let client = &client.replace(":40000", if to == backend { ":40000" } else { ":40001" });
            let requests = both(client, vip, Tcp::Syn);
            for (i, request) in requests.iter().enumerate() {
                let source = sent(programs, "kp_egress", request, to);
                assert_eq!(source.ip(), wanted);
                let answer = &both(to, &source.to_string(), Tcp::SynAck)[i];
                let back = programs.ingress(answer);
                if to == backend {
                    // The route to the frontend leads out of the device that it comes in by.
                    assert_eq!((back.action, back.ends()), (NEXT, (at(vip), at(client))));
                } else {
                    is_handed(&back, vip, client);
                }
                // Somebody else who says to be this node is left to the stack.
                assert_eq!(programs.ingress(request).ends(), (at(client), at(vip)));
            }
        }
    });
}

#[test]
fn a_pod_of_the_node_answers_its_processes_at_its_own_link() {
    by_packets(|programs, Family { client, vip, behind, .. }| {
        programs.service(SERVICE, &[&format!("L{behind}")]);
        programs.forget_uplink(overlay());
        for (i, request) in both(client, vip, Tcp::Syn).iter().enumerate() {
            let source = sent(programs, "kp_egress", request, behind);
            assert_eq!(source.ip(), at(client).ip());
            let answer = &both(behind, &source.to_string(), Tcp::SynAck)[i];
            is_handed(&programs.run("kp_pod_ingress", answer), vip, client);
            assert_eq!(programs.run("kp_pod_egress", answer).ends(), ends(answer));
        }
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap().into();
        let [v4, v6] = [0, 1].map(|i| ip(FAMILIES[i].overlay));
        programs.uplink(overlay(), Uplink { v4, v6, flags: uplink_flags::OVERLAY });
    });
}

#[test]
fn a_backend_with_the_nodes_address_is_reached_over_the_loopback_device() {
    by_packets(|programs, Family { client, vip, itself, .. }| {
        programs.service(SERVICE, &[&format!("L{itself}")]);
        for (i, request) in both(client, vip, Tcp::Syn).iter().enumerate() {
            let turned = programs.run("kp_egress", request);
            assert_eq!((turned.action, turned.mark), (REDIRECT, MARK_MASQUERADE));
            assert_eq!(turned.ends(), (at(client), at(vip)));
            // Only the mark tells it from a packet of somebody who says to be this node.
            let forged = programs.ingress(request);
            assert_eq!((forged.action, forged.ends()), (NEXT, (at(client), at(vip))));
            programs.marked(MARK_MASQUERADE | 1);
            let there = programs.ingress(request);
            programs.marked(0);
            assert_eq!((there.action, there.mark, there.destination()), (REDIRECT, 1, at(itself)));
            assert_eq!(there.source().ip(), at(client).ip());
            let answer = &both(itself, &there.source().to_string(), Tcp::SynAck)[i];
            let back = programs.run("kp_node_egress", answer);
            assert_eq!((back.action, back.ends()), (NEXT, (at(vip), at(client))));
        }
    });
}

/// At the loopback device a request from one end to the other leaves for the backend as from the node's
/// own address, and the answer, which comes in by `device`, is handed back.
fn is_served_at_loopback(
    programs: &mut Programs,
    device: u32,
    [from, to]: [&str; 2],
    backend: &str,
    itself: &str,
) {
    for (i, request) in both(from, to, Tcp::Syn).iter().enumerate() {
        let source = sent(programs, "kp_node_egress", request, backend);
        assert_eq!(source.ip(), at(itself).ip(), "never a loopback address");
        let answer = &both(backend, &source.to_string(), Tcp::SynAck)[i];
        programs.move_to(device);
        is_handed(&programs.ingress(answer), to, from);
        programs.move_to(LO);
    }
}

#[test]
fn np_01_the_nodes_own_addresses_are_served_at_the_loopback_device() {
    by_packets(|programs, Family { client, node_port, backend, itself, loopback, .. }| {
        let [from_loopback, to_loopback] = loopback;
        let device = programs.move_to(LO);
        for (from, to) in [(client, node_port), (from_loopback, to_loopback)] {
            programs.service(SERVICE, &[backend]);
            is_served_at_loopback(programs, device, [from, to], backend, client);
            programs.service(SERVICE, &[&format!("L{itself}")]);
            let other = from.replace(":40000", ":40001");
            let there = programs.run("kp_node_egress", &tcp(&other, to, Tcp::Syn));
            assert_eq!((there.action, there.destination()), (NEXT, at(itself)));
            let answer = tcp(itself, &there.source().to_string(), Tcp::SynAck);
            let back = programs.run("kp_node_egress", &answer);
            assert_eq!((back.action, back.ends()), (NEXT, (at(to), at(&other))));
        }
        let other = tcp(client, &node_port.replace(":30080", ":22"), Tcp::Syn);
        assert_eq!(programs.run("kp_node_egress", &other).packet[12..], other[12..]);
        programs.move_to(device);
    });
}

#[test]
fn ver_01_ver_04_ver_16_a_process_of_the_node_is_refused_or_hears_nothing() {
    by_packets(|programs, Family { client, vip, node_port, .. }| {
        programs.empty(SERVICE, empty_verdict::REJECT);
        for to in [*vip, &vip.replace(":80", ":81")] {
            for request in both(client, to, Tcp::Syn) {
                let ran = programs.run("kp_egress", &request);
                assert_eq!(ran.action, REDIRECT, "{to}");
                // In by the device that it was to leave by, whose address was the sender's.
                assert!(ran.packet[..6] == request[6..12], "to this node");
            }
        }
        let device = programs.move_to(LO);
        let reset = programs.run("kp_node_egress", &tcp(client, node_port, Tcp::Syn));
        assert_eq!((reset.action, reset.ends()), (NEXT, (at(node_port), at(client))));
        programs.move_to(device);
        programs.empty(SERVICE, empty_verdict::DROP);
        assert_eq!(programs.run("kp_egress", &udp(client, vip)).action, SHOT);
    });
}

#[test]
fn lbr_02_lbr_03_source_ranges_hold_for_the_nodes_processes() {
    by_packets(|programs, Family { client, backend, .. }| {
        let (proto, ranges) = (kproxy_common::net::proto::TCP, kind::SOURCE_RANGES);
        let (outside, own) = (client.replace("1:40", "9:40"), client.replace(":40000", ":443"));
        programs.service(SERVICE, &[backend]);
        programs.frontend(&outside, proto, kind::LOAD_BALANCER | ranges, SERVICE, SERVICE);
        let out = |programs: &mut Programs| {
            programs.run("kp_egress", &tcp(client, &outside, Tcp::Syn)).action
        };
        assert_eq!(out(programs), SHOT);
        let ip = at(client).ip().to_string();
        let len = if ip.contains(':') { 128 } else { 32 };
        programs.range(SERVICE, &ip, len);
        assert_eq!(out(programs), REDIRECT);
        programs.remove_range(SERVICE, &ip, len);
        // An address of this node, which is its own source: the ranges hold another one of it, or none.
        let device = programs.move_to(LO);
        for (flag, wanted) in [(kind::NODE_ALLOWED, REDIRECT), (0, SHOT)] {
            let flags = kind::LOAD_BALANCER | ranges | flag;
            programs.frontend(&own, proto, flags, SERVICE, SERVICE);
            let from = client.replace(":40000", if flag == 0 { ":40002" } else { ":40003" });
            let ran = programs.run("kp_node_egress", &tcp(&from, &own, Tcp::Syn));
            assert_eq!(ran.action, wanted);
        }
        programs.move_to(device);
        assert_eq!(programs.drops().last().unwrap().1, DropReason::SourceNotAllowed);
    });
}

#[test]
fn pkt_04_what_hooks_leave_to_the_packets_is_served_as_they_would() {
    by_packets(|programs, Family { client, vip, backend, .. }| {
        programs.configure(|config| Config { flags: 0, ..config });
        programs.service(SERVICE, &[backend]);
        let [syn, datagram] = &both(client, vip, Tcp::Syn)[..] else { unreachable!() };
        let source = sent(programs, "kp_egress", syn, backend).to_string();
        let answer = tcp(backend, &source, Tcp::SynAck);
        assert_eq!(programs.ingress(&answer).ends(), (at(vip), at(client)));
        let source = sent(programs, "kp_egress", datagram, backend).to_string();
        assert_eq!(programs.ingress(&udp(backend, &source)).ends(), (at(vip), at(client)));
        programs.frontend(vip, SCTP, kind::CLUSTER_IP, SERVICE, SERVICE);
        let there = programs.run("kp_egress", &sctp::sctp(client, vip, sctp::INIT, 16));
        assert_eq!(there.action, REDIRECT, "{:?}", programs.drops());
        let (source, to) = sctp::ends(&there.packet);
        assert_eq!(to, at(backend));
        let answer = sctp::sctp(backend, &source.to_string(), sctp::INIT_ACK, 16);
        let back = programs.ingress(&answer);
        assert_eq!((back.action, sctp::ends(&back.packet)), (NEXT, (at(vip), at(client))));
    });
}

#[test]
fn np_01_where_hooks_serve_sockets_those_bound_to_loopback_are_left() {
    by_packets(|programs, Family { client, backend, loopback, .. }| {
        programs.configure(|config| Config { flags: 0, ..config });
        programs.service(SERVICE, &[backend]);
        let device = programs.move_to(LO);
        let [from, to] = loopback;
        is_served_at_loopback(programs, device, [from, to], backend, client);
        programs.move_to(device);
    });
}

#[test]
fn flow_08_what_the_node_asks_itself_from_a_nodeport_is_answered() {
    by_packets(|programs, Family { client, node_port, backend, .. }| {
        programs.configure(|config| Config { flags: 0, ..config });
        programs.service(SERVICE, &[backend]);
        let device = programs.move_to(LO);
        for (from, to) in [(node_port, client), (client, node_port)] {
            let ran = programs.run("kp_node_egress", &udp(from, to));
            assert_eq!((ran.action, ran.ends()), (NEXT, (at(from), at(to))));
        }
        programs.move_to(device);
    });
}

#[test]
fn tcp_of_no_flow_for_a_service_is_reset_where_it_would_leave() {
    if !knows_where_packets_come_from() {
        return;
    }
    by_packets(|programs, Family { vip, node_port, backend, .. }| {
        programs.configure(|config| Config { flags: 0, ..config });
        programs.service(SERVICE, &[backend]);
        let unknown = format!("{vip}9");
        let outside = if vip.contains('[') { "[2001:db8:1::9]:40000" } else { "203.0.113.9:40000" };
        for to in [*vip, &unknown] {
            let data = tcp(outside, to, Tcp::Ack);
            // Of a process of the node, and where netfilter is still to see it.
            assert_eq!(programs.run("kp_egress", &data).packet[12..], data[12..]);
            assert_eq!(programs.ingress(&data).packet[12..], data[12..]);
            programs.comes_from(overlay());
            let ran = programs.run("kp_egress", &data);
            assert_eq!((ran.action, ran.ends()), (REDIRECT, (at(to), at(outside))));
            let sliced = SlicedPacket::from_ethernet(&ran.packet).unwrap();
            let Some(TransportSlice::Tcp(reset)) = sliced.transport else { panic!() };
            assert!(reset.rst());
            assert_eq!(reset.sequence_number(), Tcp::Ack.segment().ack);
            // A reset is not answered, and what has no Service goes on.
            assert_eq!(programs.run("kp_egress", &tcp(outside, to, Tcp::Rst)).action, SHOT);
            for other in [*backend, node_port] {
                let data = tcp(outside, other, Tcp::Ack);
                assert_eq!(programs.run("kp_egress", &data).packet[12..], data[12..]);
            }
            programs.comes_from(0);
        }
    });
}

#[test]
fn what_has_come_in_elsewhere_is_no_process_of_the_node() {
    if !knows_where_packets_come_from() {
        return;
    }
    by_packets(|programs, Family { client, vip, node_port, backend, .. }| {
        programs.service(SERVICE, &[backend]);
        programs.comes_from(overlay());
        for request in both(client, vip, Tcp::Syn) {
            assert_eq!(programs.run("kp_egress", &request).packet[12..], request[12..]);
        }
        for request in both(client, node_port, Tcp::Syn) {
            assert_eq!(programs.run("kp_node_egress", &request).packet[12..], request[12..]);
        }
        programs.comes_from(0);
        assert_eq!(programs.flows().len(), 0);
    });
}
