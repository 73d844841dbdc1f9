//! The cases. Addresses are documentation ranges; `L` marks an endpoint on this node.

use kproxy_common::{
    abi::MARK_MASQUERADE,
    drop_reason::DropReason,
    net::proto::{TCP, UDP},
    service::{empty_verdict, frontend_flags as kind},
};

use crate::harness::{NEXT, Programs, SHOT, Tcp, ends, knows_where_packets_come_from, tcp, udp};

pub(crate) const CLUSTER: u32 = 2;
pub(crate) const LOCAL: u32 = 3;

/// Node 192.0.2.1 / 2001:db8::1 with NodePort 30080 and a ClusterIP; `CLUSTER` and `LOCAL` are the
/// sets of the service port.
pub(crate) fn programs(backends: &[&str]) -> Programs {
    let mut programs = Programs::load();
    for (proto, node) in [TCP, UDP].into_iter().flat_map(|p| [(p, "0.0.0.0"), (p, "[::]")]) {
        programs.frontend(&format!("{node}:30080"), proto, kind::NODE_PORT, CLUSTER, CLUSTER);
    }
    for (proto, vip) in
        [TCP, UDP].into_iter().flat_map(|p| [(p, "10.96.0.10"), (p, "[fd00:10:96::a]")])
    {
        programs.frontend(&format!("{vip}:80"), proto, kind::CLUSTER_IP, CLUSTER, CLUSTER);
    }
    for ip in ["192.0.2.1", "2001:db8::1", "127.0.0.1", "::1"] {
        programs.address(ip, kind::NODE_ADDRESS);
    }
    for ip in ["10.96.0.10", "fd00:10:96::a"] {
        programs.address(ip, kind::SERVICE_ADDRESS);
    }
    programs.service(CLUSTER, backends);
    programs
}

/// Request and answer through the uplink for each family and protocol.
#[test]
fn ver_05_nodeport_reaches_a_local_backend_and_keeps_the_client() {
    for (client, node, backend) in [
        ("203.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080"),
        ("[2001:db8:9::9]:40000", "[2001:db8::1]:30080", "[fd00:10:244:1::5]:8080"),
    ] {
        let mut programs = programs(&[&format!("L{backend}")]);
        for (request, answer) in [
            (tcp(client, node, Tcp::Syn), tcp(backend, client, Tcp::SynAck)),
            (udp(client, node), udp(backend, client)),
        ] {
            let there = programs.ingress(&request);
            assert_eq!((there.action, there.mark), (NEXT, 0));
            assert_eq!(there.source(), client.parse().unwrap());
            assert_eq!(there.destination(), backend.parse().unwrap());
            let back = programs.egress(&answer);
            assert_eq!((back.action, back.mark), (NEXT, 0));
            assert_eq!(back.source(), node.parse().unwrap());
            assert_eq!(back.destination(), client.parse().unwrap());
        }
        let (connections, packets, _) = programs.counters(CLUSTER);
        assert_eq!((connections, packets), (2, 4));
        assert_eq!(programs.drops(), []);
        assert_eq!(programs.flows().len(), 4);
    }
}

#[test]
fn msq_07_a_backend_elsewhere_is_marked_for_masquerade_on_opening_packets_only() {
    let (client, node, backend) = ("203.0.113.9:40000", "192.0.2.1:30080", "10.244.2.5:8080");
    let mut programs = programs(&[backend]);
    assert_eq!(programs.ingress(&tcp(client, node, Tcp::Syn)).mark, MARK_MASQUERADE);
    // A retransmitted SYN may be the one that netfilter sees first.
    assert_eq!(programs.ingress(&tcp(client, node, Tcp::Syn)).mark, MARK_MASQUERADE);
    let ack = programs.ingress(&tcp(client, node, Tcp::Ack));
    assert_eq!((ack.mark, ack.destination()), (0, backend.parse().unwrap()));
    assert_eq!(programs.counters(CLUSTER).0, 1);

    assert_eq!(programs.ingress(&udp(client, node)).mark, MARK_MASQUERADE);
    assert_eq!(programs.ingress(&udp(client, node)).mark, MARK_MASQUERADE);
    programs.egress(&udp(backend, client));
    assert_eq!(programs.ingress(&udp(client, node)).mark, 0, "answered: netfilter knows it");
}

#[test]
fn pkt_12_clusterip_from_outside_the_cluster() {
    let mut programs = programs(&["L10.244.1.5:8080", "10.244.2.5:8080"]);
    let marks: Vec<_> = ["203.0.113.9:1", "203.0.113.9:2"]
        .into_iter()
        .map(|client| {
            let ran = programs.ingress(&tcp(client, "10.96.0.10:80", Tcp::Syn));
            (ran.destination().to_string(), ran.mark)
        })
        .collect();
    assert!(marks.contains(&("10.244.1.5:8080".into(), 0)), "{marks:?}");
    assert!(marks.contains(&("10.244.2.5:8080".into(), MARK_MASQUERADE)), "{marks:?}");
}

#[test]
fn pkt_01_new_connections_are_spread_evenly() {
    let mut programs = programs(&["L10.244.1.5:80", "L10.244.1.6:80", "L10.244.1.7:80"]);
    let mut seen = std::collections::BTreeMap::new();
    for port in 1..=300 {
        let client = format!("203.0.113.9:{port}");
        let ran = programs.ingress(&tcp(&client, "192.0.2.1:30080", Tcp::Syn));
        *seen.entry(ran.destination()).or_insert(0) += 1;
    }
    // Round robin by CPU: this thread may have moved once or twice.
    assert_eq!(seen.len(), 3);
    assert!(seen.values().all(|n| (98..=102).contains(n)), "{seen:?}");
}

#[test]
fn ver_10_a_flow_keeps_its_backend_when_the_set_changes_or_goes() {
    let (client, node) = ("203.0.113.9:40000", "192.0.2.1:30080");
    let mut programs = programs(&["L10.244.1.5:8080"]);
    programs.ingress(&tcp(client, node, Tcp::Syn));
    programs.egress(&tcp("10.244.1.5:8080", client, Tcp::SynAck));
    programs.service(CLUSTER, &["L10.244.1.6:8080"]);
    let ran = programs.ingress(&tcp(client, node, Tcp::Ack));
    assert_eq!(ran.destination(), "10.244.1.5:8080".parse().unwrap());
    programs.remove_frontend("0.0.0.0:30080", TCP);
    let ran = programs.ingress(&tcp(client, node, Tcp::Ack));
    assert_eq!(ran.destination(), "10.244.1.5:8080".parse().unwrap());
}

#[test]
fn an_unanswered_syn_moves_to_a_live_backend_after_a_change() {
    let (client, node) = ("203.0.113.9:40000", "192.0.2.1:30080");
    let mut programs = programs(&["L10.244.1.5:8080"]);
    programs.ingress(&tcp(client, node, Tcp::Syn));
    programs.service(CLUSTER, &["L10.244.1.6:8080"]);
    let retry = programs.ingress(&tcp(client, node, Tcp::Syn));
    assert_eq!(retry.destination(), "10.244.1.6:8080".parse().unwrap());
}

#[test]
fn a_client_port_may_be_used_again_after_close_or_reset() {
    for last in [Tcp::FinAck, Tcp::Rst] {
        let (client, node) = ("203.0.113.9:40000", "192.0.2.1:30080");
        let mut programs = programs(&["L10.244.1.5:8080"]);
        programs.ingress(&tcp(client, node, Tcp::Syn));
        programs.egress(&tcp("10.244.1.5:8080", client, Tcp::SynAck));
        programs.ingress(&tcp(client, node, last));
        programs.egress(&tcp("10.244.1.5:8080", client, last));
        if last == Tcp::FinAck {
            // Until both FINs are acknowledged a SYN is one too many.
            programs.ingress(&tcp(client, node, Tcp::Ack));
        }
        programs.service(CLUSTER, &["L10.244.1.6:8080"]);
        let again = programs.ingress(&tcp(client, node, Tcp::Syn));
        assert_eq!(again.destination(), "10.244.1.6:8080".parse().unwrap());
        assert_eq!(programs.counters(CLUSTER).0, 2);
    }
}

#[test]
fn ver_07_local_policy_without_local_endpoint_drops_outsiders_only() {
    let mut programs = programs(&["10.244.2.5:8080"]);
    programs.frontend("0.0.0.0:30080", TCP, kind::NODE_PORT, CLUSTER, LOCAL);
    programs.empty(LOCAL, empty_verdict::DROP);
    programs.cluster_cidr("10.244.0.0", 16);
    let syn = tcp("203.0.113.9:1", "192.0.2.1:30080", Tcp::Syn);
    assert_eq!(programs.ingress(&syn).action, SHOT);
    assert_eq!(programs.drops(), [(LOCAL, DropReason::NoLocalBackend, 1)]);
    // VER-15: a pod of another node is outside, one of this node is not.
    let pod = tcp("10.244.3.7:1", "192.0.2.1:30080", Tcp::Syn);
    assert_eq!(programs.ingress(&pod).action, SHOT);
    assert_eq!(programs.drops(), [(LOCAL, DropReason::NoLocalBackend, 2)]);
    let inside = programs.run("kp_pod_ingress", &pod);
    assert_eq!(inside.destination(), "10.244.2.5:8080".parse().unwrap());
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut programs = programs(&["L10.244.1.5:8080"]);
    let mut arp = vec![0xff; 42];
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut fragment = udp("203.0.113.9:1", "192.0.2.1:30080");
    fragment[21] = 1; // an offset
    let mut truncated = tcp("203.0.113.9:1", "192.0.2.1:30080", Tcp::Syn);
    truncated.truncate(14 + 20 + 7);
    for (what, packet) in [
        ("another port of the node", tcp("203.0.113.9:1", "192.0.2.1:22", Tcp::Syn)),
        ("another address", udp("203.0.113.9:1", "198.51.100.1:30080")),
        ("TCP without a flow", tcp("203.0.113.9:1", "192.0.2.1:30080", Tcp::Ack)),
        ("a SYN-ACK to a node port", tcp("203.0.113.9:1", "192.0.2.1:30080", Tcp::SynAck)),
        ("ARP", arp),
        ("a fragment without its first one", fragment),
        ("a cut TCP header", truncated),
    ] {
        for direction in ["kp_ingress", "kp_egress"] {
            let ran = programs.run(direction, &packet);
            assert_eq!((ran.action, ran.mark, &ran.packet), (NEXT, 0, &packet), "{what}");
        }
    }
    assert_eq!((programs.counters(CLUSTER).0, programs.drops()), (0, vec![]));
    assert_eq!(programs.flows(), []);
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut programs = programs(&["L10.244.1.5:8080"]);
    let mut packet = udp("203.0.113.9:1", "192.0.2.1:30080");
    packet[14 + 20 + 6..14 + 20 + 8].fill(0);
    let ran = programs.ingress(&packet);
    assert_eq!(ran.destination(), "10.244.1.5:8080".parse().unwrap());
    assert_eq!(ran.packet[14 + 20 + 6..14 + 20 + 8], [0, 0]);
}

#[test]
fn ipv4_options_are_walked_over() {
    let mut programs = programs(&["L10.244.1.5:8080"]);
    let plain = udp("203.0.113.9:1", "192.0.2.1:30080");
    // Four bytes of "no operation" between the header and UDP.
    let mut packet = plain[..34].to_vec();
    packet.extend([1, 1, 1, 1]);
    packet.extend(&plain[34..]);
    packet[14] = 0x46;
    let total = (packet.len() - 14) as u16;
    packet[16..18].copy_from_slice(&total.to_be_bytes());
    let mut header = etherparse::Ipv4Header::from_slice(&packet[14..]).unwrap().0;
    header.header_checksum = header.calc_header_checksum();
    packet[14..38].copy_from_slice(&header.to_bytes());
    assert_eq!(programs.ingress(&packet).destination(), "10.244.1.5:8080".parse().unwrap());
}

#[test]
fn one_client_port_may_reach_one_near_backend_by_several_frontends() {
    let (client, backend) = ("203.0.113.9:40000", "10.244.1.5:8080");
    let mut programs = programs(&[&format!("L{backend}")]);
    programs.frontend("10.96.0.11:80", TCP, kind::CLUSTER_IP, CLUSTER, CLUSTER);
    programs.frontend("10.96.0.11:80", UDP, kind::CLUSTER_IP, CLUSTER, CLUSTER);
    let frontends = ["192.0.2.1:30080", "10.96.0.10:80", "10.96.0.11:80"];
    for make in
        [|from: &str, to: &str| tcp(from, to, Tcp::Syn), |from: &str, to: &str| udp(from, to)]
    {
        let there: Vec<_> = frontends.map(|to| programs.ingress(&make(client, to))).into();
        let mut sources: Vec<_> = there.iter().map(|ran| ran.source()).collect();
        assert!(there.iter().all(|ran| ran.destination() == backend.parse().unwrap()));
        assert!(
            sources.iter().all(|source| source.ip() == sources[0].ip()),
            "the client's address"
        );
        // The answers are told apart by the port that the backend sees.
        for (source, frontend) in sources.iter().zip(frontends) {
            let answer = match make(backend, &source.to_string()) {
                packet if packet[23] == UDP => packet,
                _ => tcp(backend, &source.to_string(), Tcp::SynAck),
            };
            let back = programs.egress(&answer);
            assert_eq!(back.ends(), (frontend.parse().unwrap(), client.parse().unwrap()));
        }
        // So are the next packets, and the end of one ends no other.
        for (source, frontend) in sources.iter().zip(frontends) {
            assert_eq!(
                programs.ingress(&tcp(client, frontend, Tcp::Ack)).source().ip(),
                source.ip()
            );
        }
        sources.sort();
        sources.dedup();
        assert_eq!(sources.len(), 3);
    }
    assert_eq!(programs.drops(), []);
}

#[test]
fn a_direct_conversation_and_one_by_a_frontend_are_told_apart() {
    let (client, node, backend) = ("203.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080");
    let mut programs = programs(&[&format!("L{backend}")]);
    for (request, direct, answer) in [
        (
            tcp(client, node, Tcp::Syn),
            tcp(client, backend, Tcp::Syn),
            (|to: &str| tcp("10.244.1.5:8080", to, Tcp::SynAck)) as fn(&str) -> Vec<u8>,
        ),
        (udp(client, node), udp(client, backend), |to| udp("10.244.1.5:8080", to)),
    ] {
        assert_eq!(programs.ingress(&request).source(), client.parse().unwrap());
        let source = programs.ingress(&direct).source();
        assert_ne!(source, client.parse().unwrap());
        for (source, from) in [(client, node), (&source.to_string(), backend)] {
            let back = programs.egress(&answer(source));
            assert_eq!(back.ends(), (from.parse().unwrap(), client.parse().unwrap()));
        }
    }
}

#[test]
fn a_datagram_to_a_backend_that_has_left_opens_a_flow_to_another() {
    let (client, node) = ("203.0.113.9:40000", "192.0.2.1:30080");
    let (old, new) = ("10.244.1.5:8080", "10.244.1.6:8080");
    let mut programs = programs(&[&format!("L{old}")]);
    programs.ingress(&udp(client, node));
    // A change that does not concern it.
    programs.service(CLUSTER, &[&format!("L{old}"), &format!("L{new}")]);
    assert_eq!(programs.ingress(&udp(client, node)).destination(), old.parse().unwrap());
    programs.service(CLUSTER, &[&format!("L{new}")]);
    assert_eq!(programs.ingress(&udp(client, node)).destination(), new.parse().unwrap());
    // Answers under way of the old one still come from the frontend.
    for backend in [old, new] {
        let back = programs.egress(&udp(backend, client));
        assert_eq!(back.source(), node.parse().unwrap(), "{backend}");
    }
    assert_eq!(programs.counters(CLUSTER).0, 2);
}

#[test]
fn a_connection_that_is_refused_anew_leaves_nothing_of_the_old_one() {
    let (client, node) = ("203.0.113.9:40000", "192.0.2.1:30080");
    for answered in [false, true] {
        let mut programs = programs(&["L10.244.1.5:8080"]);
        programs.ingress(&tcp(client, node, Tcp::Syn));
        if answered {
            programs.egress(&tcp("10.244.1.5:8080", client, Tcp::Rst));
        }
        programs.empty(CLUSTER, empty_verdict::DROP);
        assert_eq!(programs.ingress(&tcp(client, node, Tcp::Syn)).action, SHOT);
        assert_eq!(programs.flows(), []);
        let data = tcp(client, node, Tcp::Ack);
        assert_eq!(programs.ingress(&data).packet, data, "no backend has this connection");
    }
}

#[test]
fn ver_04_an_untranslated_packet_for_a_refusing_clusterip_does_not_leave_the_node() {
    let mut programs = programs(&[]);
    programs.empty(CLUSTER, empty_verdict::DROP);
    let syn = tcp("10.244.1.9:1", "10.96.0.10:80", Tcp::Syn);
    assert_eq!(programs.egress(&syn).action, SHOT);
    assert_eq!(programs.drops(), [(CLUSTER, DropReason::NoLocalBackend, 1)]);
    if !knows_where_packets_come_from() {
        return;
    }
    // With backends it is a sender that other hooks take care of, unless it is this node.
    programs.comes_from(1);
    assert_eq!(programs.egress(&syn).action, SHOT);
    programs.service(CLUSTER, &["10.244.2.5:8080"]);
    assert_eq!(programs.egress(&syn).action, NEXT);
}

/// Devices without an Ethernet header. BPF_PROG_TEST_RUN takes the protocol from bytes 12 and 13,
/// so the client's address is chosen to hold the EtherType there.
#[test]
fn devices_without_ethernet_header_are_translated_too() {
    for (client, node, backend) in [
        ("8.0.113.9:40000", "192.0.2.1:30080", "10.244.1.5:8080"),
        ("[2001:db8:86dd::9]:40000", "[2001:db8::1]:30080", "[fd00:10:244:1::5]:8080"),
    ] {
        let mut programs = programs(&[&format!("L{backend}")]);
        let packet = udp(client, node);
        let ran = programs.run("kp_ingress_l3", &packet[14..]);
        let mut framed = packet[..14].to_vec();
        framed.extend(&ran.packet);
        assert_eq!(ends(&framed), (client.parse().unwrap(), backend.parse().unwrap()));
    }
}
