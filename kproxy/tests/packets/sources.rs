//! Source ranges of load-balancer addresses on the packet path.

use kproxy_common::drop_reason::DropReason;
use kproxy_common::net::proto::{TCP, UDP};
use kproxy_common::service::{empty_verdict, frontend_flags as kind};

use crate::harness::{NEXT, Programs, REDIRECT, SHOT, Tcp, tcp, udp};
use crate::rows::{CLUSTER, LOCAL, programs};

const VIPS: [&str; 2] = ["203.0.113.20:80", "[2001:db8:5::20]:80"];
const RESTRICTED: u32 = kind::LOAD_BALANCER | kind::SOURCE_RANGES;

/// With load-balancer addresses that are open to 198.51.100.0/25, 192.0.2.77 and 2001:db8:77::/48.
fn restricted(backends: &[&str]) -> Programs {
    let mut programs = programs(backends);
    for (vip, proto) in VIPS.into_iter().flat_map(|vip| [(vip, TCP), (vip, UDP)]) {
        programs.frontend(vip, proto, RESTRICTED, CLUSTER, LOCAL);
    }
    programs.service(LOCAL, backends);
    for (base, len) in [("198.51.100.0", 25), ("192.0.2.77", 32), ("2001:db8:77::", 48)] {
        programs.range(LOCAL, base, len);
    }
    // Those of others have no say.
    programs.range(8, "0.0.0.0", 0);
    programs.range(8, "::", 0);
    programs
}

#[test]
fn lbr_02_only_sources_of_a_range_get_through() {
    let rows = [
        ("198.51.100.0:1", VIPS[0], true),
        ("198.51.100.127:1", VIPS[0], true),
        ("198.51.100.128:1", VIPS[0], false),
        ("198.51.99.255:1", VIPS[0], false),
        ("192.0.2.77:1", VIPS[0], true),
        ("192.0.2.76:1", VIPS[0], false),
        // LBR-02: pods are no exception.
        ("10.244.3.7:1", VIPS[0], false),
        ("[2001:db8:77:ffff::1]:1", VIPS[1], true),
        ("[2001:db8:78::1]:1", VIPS[1], false),
        ("[2001:db8:76:ffff::1]:1", VIPS[1], false),
    ];
    let mut programs = restricted(&["L10.244.1.5:8080"]);
    programs.cluster_cidr("10.244.0.0", 16);
    let v6 = ["L[fd00:10:244:1::5]:8080"];
    let mut refused = 0;
    for (client, vip, allowed) in rows {
        if vip == VIPS[1] {
            programs.service(CLUSTER, &v6);
            programs.service(LOCAL, &v6);
        }
        for packet in [tcp(client, vip, Tcp::Syn), udp(client, vip)] {
            let ran = programs.ingress(&packet);
            if allowed {
                assert_eq!(ran.destination().port(), 8080, "{client}");
                assert_eq!(ran.source(), client.parse().unwrap());
                continue;
            }
            assert_eq!((ran.action, ran.mark), (SHOT, 0), "{client}");
            // Of the set for those outside, a pod of another node too.
            refused += 1;
        }
    }
    let reason = DropReason::SourceNotAllowed;
    assert_eq!(programs.drops(), [(LOCAL, reason, refused)]);
}

#[test]
fn lbr_01_nodeports_and_cluster_ips_of_the_same_service_are_open() {
    let mut programs = restricted(&["L10.244.1.5:8080"]);
    for (client, to) in
        [("198.51.100.200:1", "192.0.2.1:30080"), ("198.51.100.200:2", "10.96.0.10:80")]
    {
        let ran = programs.ingress(&tcp(client, to, Tcp::Syn));
        assert_eq!(ran.destination(), "10.244.1.5:8080".parse().unwrap(), "{to}");
    }
    assert_eq!(programs.drops(), []);
}

#[test]
fn lbr_04_blocked_sources_are_dropped_also_when_others_would_be_refused() {
    let mut programs = restricted(&[]);
    for set in [CLUSTER, LOCAL] {
        programs.empty(set, empty_verdict::REJECT);
    }
    let blocked = programs.ingress(&tcp("198.51.100.200:1", VIPS[0], Tcp::Syn));
    assert_eq!((blocked.action, blocked.mark), (SHOT, 0));
    let allowed = programs.ingress(&tcp("198.51.100.1:1", VIPS[0], Tcp::Syn));
    assert_eq!(allowed.action, REDIRECT);
    let counted = [(LOCAL, DropReason::NoBackend, 1), (LOCAL, DropReason::SourceNotAllowed, 1)];
    assert_eq!(programs.drops(), counted);
}

#[test]
fn lbr_05_narrower_ranges_leave_established_connections_alone() {
    let mut programs = restricted(&["L10.244.1.5:8080"]);
    let (client, backend) = ("198.51.100.1:1", "10.244.1.5:8080");
    for packet in [tcp(client, VIPS[0], Tcp::Syn), udp(client, VIPS[0])] {
        programs.ingress(&packet);
    }
    programs.egress(&tcp(backend, client, Tcp::SynAck));
    programs.egress(&udp(backend, client));
    programs.remove_range(LOCAL, "198.51.100.0", 25);
    for packet in [tcp(client, VIPS[0], Tcp::Ack), udp(client, VIPS[0])] {
        assert_eq!(programs.ingress(&packet).destination(), backend.parse().unwrap());
    }
    let anew = programs.ingress(&tcp("198.51.100.1:2", VIPS[0], Tcp::Syn));
    assert_eq!(anew.action, SHOT);
}

#[test]
fn lbr_07_two_halves_are_everybody_and_no_range_is_nobody() {
    let mut programs = restricted(&["L10.244.1.5:8080"]);
    let syn = |programs: &mut Programs, client: &str| {
        programs.ingress(&tcp(client, VIPS[0], Tcp::Syn)).action
    };
    for (base, len) in [("198.51.100.0", 25), ("192.0.2.77", 32)] {
        programs.remove_range(LOCAL, base, len);
    }
    for client in ["198.51.100.1:1", "203.0.113.1:1", "10.0.0.1:1"] {
        assert_eq!(syn(&mut programs, client), SHOT, "{client}");
    }
    programs.range(LOCAL, "0.0.0.0", 0);
    for client in ["198.51.100.1:1", "203.0.113.1:1", "10.0.0.1:1"] {
        assert_eq!(syn(&mut programs, client), NEXT, "{client}");
    }
}

#[test]
fn lbr_02_what_the_socket_path_left_alone_does_not_leave_the_node() {
    let mut programs = restricted(&["L10.244.1.5:8080"]);
    for packet in [
        tcp("10.244.1.9:1", VIPS[0], Tcp::Syn),
        udp("172.18.0.11:1", VIPS[0]),
        udp("[fd00:10:244:1::9]:1", VIPS[1]),
    ] {
        assert_eq!(programs.egress(&packet).action, SHOT);
    }
    assert_eq!(programs.drops(), [(CLUSTER, DropReason::SourceNotAllowed, 3)]);
    // Established connections of whoever made them pass.
    assert_eq!(programs.egress(&tcp("10.244.1.9:1", VIPS[0], Tcp::Ack)).action, NEXT);
}
