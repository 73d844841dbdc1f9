//! Fragments that come before the first one of their packet: what the daemon is told of them, and how
//! it puts them back.

use std::time::{Duration, Instant};

use aya::maps::{PerCpuArray, PerCpuValues};
use kproxy_common::{
    abi::map,
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::FlowKey,
    fragment::{
        COPIES_A_SECOND, First, INJECTED_HEAD, INJECTED_REST, Injection, MEMORY, note_flags,
    },
    net::{Addr, proto},
    service::empty_verdict,
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};

use crate::{
    harness::{NEXT, Programs, SHOT, tcp_of, udp_of},
    parts::{ENDS, cut, cut_at},
    rows::{CLUSTER, programs},
    snat::on_a_node,
};

/// ClusterIPs of the Service, by family.
const VIPS: [&str; 2] = ["10.96.0.10:80", "[fd00:10:96::a]:80"];
const POD: [&str; 2] = ["10.244.1.9:5000", "[fd00:10:244:1::9]:5000"];

/// Runs a program on a packet that passes untouched.
fn passes(programs: &mut Programs, program: &str, packet: &[u8]) {
    let ran = programs.run(program, packet);
    assert_eq!((ran.action, &ran.packet[..]), (NEXT, packet), "{program}");
}

#[test]
fn ver_21_an_early_fragment_goes_to_the_daemon_which_hears_when_the_first_one_comes() {
    for [client, node, backend] in ENDS {
        let mut programs = programs(&[&format!("L{backend}")]);
        let id = 0x0102_0304;
        let request = cut_at(&udp_of(client, node, 5000), id, 2400);
        let answer = cut(&udp_of(backend, client, 2500), id);
        for (program, fragments, side) in
            [("kp_ingress", &request, 0), ("kp_egress", &answer, note_flags::EGRESS)]
        {
            let mut key = FlowKey::default();
            for early in [2, 1] {
                passes(&mut programs, program, &fragments[early]);
                let [(note, copy)] = &programs.notes()[..] else { panic!("one copy") };
                assert_eq!((note.flags, copy), (side, &fragments[early]), "{program}");
                assert_eq!((note.len as usize, note.mark), (copy.len(), 0));
                // The loopback device's.
                assert_eq!(note.device, 1);
                let (from, to) = if side == 0 { (client, node) } else { (backend, client) };
                let ip = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().ip();
                assert_eq!((note.key.src, note.key.dst), (Addr::from(ip(from)), ip(to).into()));
                assert_eq!((note.key.proto, u32::from(note.key.pad[0])), (proto::UDP, side));
                key = note.key;
            }
            assert_ne!(programs.run(program, &fragments[0]).packet, fragments[0]);
            let [(note, copy)] = &programs.notes()[..] else { panic!("word of the first one") };
            assert_eq!(
                (note.flags, note.key, copy.len()),
                (note_flags::FIRST, key, 0),
                "{program}"
            );
            // Put back now, they are translated like any others.
            for early in [2, 1] {
                assert_ne!(programs.run(program, &fragments[early]).packet, fragments[early]);
            }
            assert_eq!(programs.notes(), []);
        }
        assert_eq!(programs.drops(), []);
    }
}

#[test]
fn nothing_is_copied_of_fragments_in_order_and_of_those_that_cannot_be_ours() {
    for [client, node, backend] in ENDS {
        let mut programs = programs(&[&format!("L{backend}")]);
        let other_port = node.replace(":30080", ":53");
        let connection = tcp_of(client, node, 1500);
        for (program, packet) in [
            ("kp_ingress", udp_of(client, node, 3000)),
            ("kp_egress", udp_of(backend, client, 3000)),
            // An answer where it comes in, another port of the node, a connection without a flow.
            ("kp_pod_ingress", udp_of(backend, client, 3000)),
            ("kp_ingress", udp_of(client, &other_port, 3000)),
            ("kp_ingress", connection),
        ] {
            cut(&packet, 7).iter().for_each(|fragment| {
                assert_eq!(programs.run(program, fragment).action, NEXT);
            });
            assert_eq!(programs.notes(), [], "{program}");
        }
        // Early, but to somebody who is no business of ours; another protocol.
        let stranger = client.replace(".9:", ".8:").replace("::9]", "::8]");
        for program in ["kp_ingress", "kp_egress"] {
            passes(&mut programs, program, &cut(&udp_of(&stranger, backend, 3000), 8)[1]);
        }
        let mut ping = cut(&udp_of(client, node, 3000), 9)[1].clone();
        let at = if ping[14] >> 4 == 4 { 23 } else { 54 };
        ping[at] = 1;
        // Its checksum is not looked at.
        passes(&mut programs, "kp_ingress", &ping);
        assert_eq!(programs.notes(), []);
        // A stranger's that are out of order: copied, and the daemon never hears of a first one.
        let late = cut(&udp_of(client, &other_port, 3000), 10);
        for fragment in [&late[1], &late[0], &late[2]] {
            passes(&mut programs, "kp_ingress", fragment);
        }
        let notes = programs.notes();
        assert_eq!((notes.len(), notes[0].0.flags, &notes[0].1), (1, 0, &late[1]));
        assert_eq!(programs.drops(), []);
    }
}

#[test]
fn early_fragments_for_a_clusterip_are_kept_off_the_network() {
    for ((vip, pod), [.., backend]) in VIPS.into_iter().zip(POD).zip(ENDS) {
        let mut programs = programs(&[backend]);
        let datagram = cut(&udp_of(pod, vip, 2500), 7);
        assert_eq!(programs.run("kp_pod_ingress", &datagram[1]).action, SHOT);
        let notes = programs.notes();
        assert_eq!((notes.len(), &notes[0].1), (1, &datagram[1]));
        assert_eq!(notes[0].0.flags, note_flags::ONLY_COPY);
        // Connections of kube-proxy may live on in netfilter.
        let segment = cut(&tcp_of(pod, vip, 2500), 8);
        passes(&mut programs, "kp_pod_ingress", &segment[1]);
        assert_eq!((programs.notes().len(), programs.drops()), (1, vec![]));
        // The first one is refused or dropped: so are the others.
        programs.empty(CLUSTER, empty_verdict::DROP);
        let refused = cut(&udp_of(&pod.replace(":5000", ":5001"), vip, 2500), 9);
        for fragment in &refused {
            assert_eq!(programs.run("kp_pod_ingress", fragment).action, SHOT);
        }
        assert_eq!(programs.notes(), []);
        assert_eq!(
            programs.drops(),
            [
                (CLUSTER, DropReason::NoLocalBackend, 1),
                (NO_SERVICE, DropReason::FragmentAlone, refused.len() as u64 - 1),
            ]
        );
    }
}

#[test]
fn a_daemon_that_does_not_listen_gets_a_full_buffer_and_no_more() {
    let [[client, node, backend], _] = ENDS;
    let mut programs = programs(&[&format!("L{backend}")]);
    let early = cut(&udp_of(client, node, 2500), 7)[1].clone();
    let vip = cut(&udp_of(POD[0], VIPS[0], 2500), 7)[1].clone();
    for _ in 0..600 {
        passes(&mut programs, "kp_ingress", &early);
    }
    // With or without a copy, it must not get any further.
    assert_eq!(programs.run("kp_pod_ingress", &vip).action, SHOT);
    let copies = programs.notes().len();
    assert!((400..600).contains(&copies), "{copies}");
    let lost = (NO_SERVICE, DropReason::FragmentLimit, 601 - copies as u64);
    assert_eq!(programs.drops(), [lost]);
    // In order all goes well, and there is room again once somebody reads.
    let whole = cut(&udp_of(client, node, 2500), 8);
    for fragment in &whole {
        assert_ne!(&programs.ingress(fragment).packet, fragment);
    }
    passes(&mut programs, "kp_ingress", &early);
    assert_eq!(programs.notes().len(), 1);
}

/// Says that every CPU has made so many copies in this second.
fn have_copied(programs: &mut Programs, copies: u32) {
    let mut limited: PerCpuArray<_, [u32; 2]> =
        PerCpuArray::try_from(programs.ebpf.map_mut("KP_LIMITED").unwrap()).unwrap();
    let values = limited.get(&1, 0).unwrap();
    let second = values.iter().map(|[second, _]| *second).max().unwrap();
    let all = vec![[second, copies]; values.len()];
    limited.set(1, PerCpuValues::try_from(all).unwrap(), 0).unwrap();
}

#[test]
fn copies_are_limited() {
    let [[client, node, backend], _] = ENDS;
    let mut programs = programs(&[&format!("L{backend}")]);
    let early = cut(&udp_of(client, node, 2500), 7)[1].clone();
    // A second may end in the middle of it.
    let is_limited = (0..5).any(|_| {
        passes(&mut programs, "kp_ingress", &early);
        have_copied(&mut programs, COPIES_A_SECOND - 1);
        passes(&mut programs, "kp_ingress", &early);
        assert_eq!(programs.notes().len(), 2);
        have_copied(&mut programs, COPIES_A_SECOND);
        passes(&mut programs, "kp_ingress", &early);
        programs.notes().is_empty()
    });
    assert!(is_limited);
    assert_eq!(programs.drops(), [(NO_SERVICE, DropReason::FragmentLimit, 1)]);
}

/// The next packet that a socket for all packets sees on a device and that `wanted` knows: where it
/// was going (PACKET_HOST is 0, PACKET_OTHERHOST 3) and its bytes.
fn seen(socket: &impl std::os::fd::AsRawFd, device: u32, wanted: &[u8]) -> Option<u8> {
    let mut bytes = vec![0; 20_000];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut bytes) {
            Ok((len, Some(from))) if from.ifindex() == device as usize => {
                if bytes[..len] == *wanted {
                    return Some(from.pkttype());
                }
            }
            Ok(_) => {}
            Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
            Err(errno) => panic!("{errno}"),
        }
    }
    None
}

#[test]
fn ver_21_an_injected_fragment_comes_in_or_leaves_as_it_did_before() {
    on_a_node(|programs| {
        let run = |script: &str| {
            let done = std::process::Command::new("bash").args(["-ec", script]).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        run("ip link set eth0 mtu 9000; ip link set eth0p mtu 9000
             ip tuntap add tun0 mode tun; ip link set tun0 up");
        let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
        let (eth0, peer, tun) = (index("eth0"), index("eth0p"), index("tun0"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let all = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll);
        let all = all.expect("a packet socket");
        for [client, node, _] in ENDS {
            for bytes in [96, 1400, 3000, 8800] {
                let mut packet = cut_at(&udp_of(client, node, 9000), 7, bytes)[1].clone();
                // This machine's, and as the bridge's above a port: somebody else's.
                for (mac, kind) in [([2, 0, 0, 0, 0, 2], 0), ([2, 0, 0, 0, 9, 9], 3)] {
                    packet[..6].copy_from_slice(&mac);
                    let (head, rest) = packet.split_at(packet.len().min(INJECTED_HEAD));
                    let mut element = [0; INJECTED_REST];
                    element[..rest.len()].copy_from_slice(rest);
                    programs
                        .array::<[u8; INJECTED_REST]>(map::INJECTED)
                        .set(0, element, 0)
                        .unwrap();
                    let order =
                        Injection { ingress: 1, more: rest.len() as u32, ..Injection::default() };
                    assert_eq!(programs.inject(head, 0, order), 0);
                    assert_eq!(seen(&all, eth0, &packet), Some(kind), "{client} {bytes} in");
                    let order = Injection { ingress: 0, ..order };
                    assert_eq!(programs.inject(head, 0, order), 0);
                    // What is sent is seen here as outgoing and at the other end as incoming.
                    assert!(seen(&all, peer, &packet).is_some(), "{client} {bytes} out");
                }
            }
        }
        programs.use_device(tun);
        for [client, node, _] in ENDS {
            let packet = cut(&udp_of(client, node, 2500), 7)[1].clone();
            assert_eq!(
                programs.inject(&packet, 0, Injection { ingress: 1, ..Injection::default() }),
                0
            );
            assert!(seen(&all, tun, &packet[14..]).is_some(), "{client} without Ethernet");
        }
        assert_eq!(programs.drops(), []);
        for reason in [DropReason::FragmentLimit, DropReason::FragmentAlone] {
            programs.inject(&[0; 64], 0, Injection { lost: reason as u32, ..Injection::default() });
            assert_eq!(programs.drops().last(), Some(&(NO_SERVICE, reason, 1)));
        }
    });
}

#[test]
fn a_stranger_where_it_comes_in_is_translated_where_it_leaves() {
    for ((vip, pod), [.., backend]) in VIPS.into_iter().zip(POD).zip(ENDS) {
        let mut programs = programs(&[backend]);
        for fragment in &cut(&udp_of(pod, vip, 2500), 7) {
            programs.run("kp_pod_ingress", fragment);
        }
        // The answer passes an uplink on its way to the pod.
        let answer = cut(&udp_of(backend, pod, 2500), 8);
        for fragment in [&answer[1], &answer[0]] {
            passes(&mut programs, "kp_ingress", fragment);
        }
        passes(&mut programs, "kp_pod_egress", &answer[1]);
        assert_ne!(programs.run("kp_pod_egress", &answer[0]).packet, answer[0]);
        let told: Vec<u32> = programs.notes().iter().map(|(note, _)| note.flags).collect();
        assert_eq!(told, [0, note_flags::EGRESS, note_flags::FIRST], "{vip}");
        for (program, is_translated) in [("kp_ingress", false), ("kp_pod_egress", true)] {
            let ran = programs.run(program, &answer[2]);
            assert_eq!(ran.packet != answer[2], is_translated, "{program}");
        }
        assert_eq!(programs.notes(), []);
    }
}

#[test]
fn what_a_first_fragment_said_is_believed_for_a_while() {
    for [client, node, backend] in ENDS {
        let mut programs = programs(&[&format!("L{backend}")]);
        let fragments = cut(&udp_of(client, node, 2500), 7);
        programs.ingress(&fragments[0]);
        let known = programs.hash::<FlowKey, First>(map::FRAGMENTS);
        let (key, first) = known.iter().next().unwrap().unwrap();
        let memory = MEMORY as i32;
        // Another CPU's clock may be ahead; one that stands still for a second is not late.
        for (age, is_known) in [(-1, true), (0, true), (memory - 1, true), (memory + 1, false)] {
            let seen = first.seen.wrapping_sub(age as u32);
            let known = First { seen, ..first };
            programs.hash(map::FRAGMENTS).insert(key, known, 0).unwrap();
            let ran = programs.ingress(&fragments[1]);
            assert_eq!(ran.packet != fragments[1], is_known, "{age}");
            assert_eq!(programs.notes().len(), usize::from(!is_known), "{age}");
        }
    }
}
