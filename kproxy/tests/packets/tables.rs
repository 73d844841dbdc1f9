//! Flow tables of kube-proxy's proxier tests that no socket of the test machine can play: FT-B
//! (`TestClusterIPGeneral`) has rows of SCTP. Here it is played on the packets of a pod.

use kproxy_common::{
    config::{Config, config_flags},
    net::proto::{SCTP, TCP, UDP},
    service::frontend_flags as kind,
};

use crate::harness::{NEXT, Programs, REDIRECT, Tcp, ends, tcp, udp};
use crate::sctp::{self, INIT, sctp};

/// Addresses of one family; ports are appended.
struct Family {
    pod: &'static str,
    svc1: &'static str,
    svc2: &'static str,
    /// On this node, and elsewhere.
    endpoints: [&'static str; 2],
}

const FAMILIES: [Family; 2] = [
    Family {
        pod: "10.180.0.2",
        svc1: "172.30.0.41",
        svc2: "172.30.0.42",
        endpoints: ["10.180.0.1", "10.180.2.1"],
    },
    Family {
        pod: "[fd00:10:180::2]",
        svc1: "[fd00:172:30::41]",
        svc2: "[fd00:172:30::42]",
        endpoints: ["[fd00:10:180::1]", "[fd00:10:180:2::1]"],
    },
];

/// Service ports: (of svc1, protocol, port, port of the endpoints).
const PORTS: [(bool, u8, u16, u16); 6] = [
    (true, TCP, 80, 80),
    (false, TCP, 80, 80),
    (false, TCP, 443, 8443),
    (false, UDP, 53, 53),
    (false, TCP, 53, 5353),
    (false, SCTP, 53, 53),
];

fn cluster_ips(family: &Family) -> Programs {
    let mut programs = Programs::load();
    programs.configure(|config| Config {
        snat_first: 20_000,
        snat_count: 100,
        flags: config.flags & !config_flags::NETFILTER,
        ..config
    });
    for (index, (svc1, proto, dialled, reached)) in (1..).zip(PORTS) {
        let (index, vip) = (index * 2, if svc1 { family.svc1 } else { family.svc2 });
        programs.frontend(&format!("{vip}:{dialled}"), proto, kind::CLUSTER_IP, index, index);
        let [here, elsewhere] = family.endpoints;
        let (here, elsewhere) = (format!("L{here}:{reached}"), format!("{elsewhere}:{reached}"));
        let both = [here.as_str(), elsewhere.as_str()];
        programs.service(index, if svc1 { &both[..1] } else { &both });
    }
    for vip in [family.svc1, family.svc2] {
        programs.address(vip.trim_matches(['[', ']']), kind::SERVICE_ADDRESS);
    }
    programs
}

/// From, protocol, destination, its port, endpoints, their port, whether the source is changed.
type Row<'a> = (&'a str, u8, &'a str, u16, &'a [&'a str], u16, bool);

/// A packet that opens a connection.
fn opening(proto: u8, from: &str, to: &str) -> Vec<u8> {
    match proto {
        TCP => tcp(from, to, Tcp::Syn),
        UDP => udp(from, to),
        _ => sctp(from, to, INIT, 16),
    }
}

#[test]
fn ft_b_cluster_ip_general() {
    const REFUSED: u16 = 0;
    for family in &FAMILIES {
        let [here, elsewhere] = family.endpoints;
        let (svc1, svc2) = (family.svc1, family.svc2);
        let mut programs = cluster_ips(family);
        let rows: [Row<'_>; 10] = [
            (family.pod, TCP, svc1, 80, &[here], 80, false),
            (here, TCP, svc1, 80, &[here], 80, true),
            (family.pod, TCP, svc2, 80, &[here, elsewhere], 80, false),
            (family.pod, TCP, svc2, 443, &[here, elsewhere], 8443, false),
            (family.pod, TCP, svc2, 53, &[here, elsewhere], 5353, false),
            (family.pod, UDP, svc2, 53, &[here, elsewhere], 53, false),
            (family.pod, SCTP, svc2, 53, &[here, elsewhere], 53, false),
            (family.pod, UDP, svc2, 80, &[], REFUSED, false),
            (family.pod, TCP, svc1, 443, &[], REFUSED, false),
            (family.pod, SCTP, svc2, 80, &[], REFUSED, false),
        ];
        // Ports of its own for each row: one port by two frontends to one backend is another matter.
        for (row, first) in rows.into_iter().zip((40_000..).step_by(20)) {
            let (from, proto, vip, dialled, wanted, reached, masquerades) = row;
            let row = format!("{from} {proto} {vip}:{dialled}");
            let mut seen = std::collections::BTreeSet::new();
            for port in first..first + 20 {
                let from = format!("{from}:{port}");
                let packet = opening(proto, &from, &format!("{vip}:{dialled}"));
                let ran = programs.run("kp_pod_ingress", &packet);
                if reached == REFUSED {
                    assert_eq!(ran.action, REDIRECT, "{row}");
                    assert_eq!(ran.packet[..6], packet[6..12], "{row}: back to the pod");
                    continue;
                }
                let (source, destination) =
                    if proto == SCTP { sctp::ends(&ran.packet) } else { ends(&ran.packet) };
                assert_eq!(ran.action, if masquerades { REDIRECT } else { NEXT }, "{row}");
                assert_eq!(source.to_string() != from, masquerades, "{row}: {source}");
                seen.insert(destination.to_string());
            }
            let wanted = wanted.iter().map(|endpoint| format!("{endpoint}:{reached}")).collect();
            assert_eq!(seen, wanted, "{row}");
        }
    }
}
