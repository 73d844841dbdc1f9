//! What a socket remembers of the frontends it dialled, whatever its program does with it.

use std::net::{IpAddr, SocketAddr};

use crate::common::{Cluster, NODE_PORT, PORT, TARGET, at, vips, wait_until};
use kproxy_lab::manifest::{Service, Slice};
use kproxy_lab::{Family, Hold, Place, Probe, Seen, Step, Stepped, Transport, mapped};
use serde_json::{Value, json};

/// ClusterIPs of the Service `dns`, which has a UDP port alone.
const OTHER: [&str; 2] = ["10.96.0.53", "fd00:10:96::53"];

fn other() -> [SocketAddr; 2] {
    OTHER.map(|ip| at(ip.parse::<IpAddr>().unwrap(), PORT))
}

/// Has the Service `dns` on this pod, and waits until it answers.
fn write_other(cluster: &Cluster, pod: &str) {
    let place = cluster.lab.place(pod).unwrap();
    let service =
        Service::new("dns").cluster_ips(OTHER[0], OTHER[1]).port("u", "UDP", PORT, TARGET);
    let slices = Family::ALL
        .map(|family| Value::from(Slice::of("dns", family).port("u", "UDP", TARGET).pod(&place)));
    cluster.write("dns.yaml", [Value::from(service)].into_iter().chain(slices));
    for to in other() {
        let probe = Probe::udp(to).count(4);
        let from = cluster.lab.pod("n1", "b");
        cluster.eventually("dns answers", &from, &probe, |o| o.server_set() == [pod].into());
    }
}

/// ClusterIPs of more Services than a socket remembers, each on one of two pods, and the pod.
fn many(cluster: &Cluster) -> Vec<[(SocketAddr, &'static str); 2]> {
    (1u16..=7)
        .map(|number| {
            let (name, pod) = (format!("s{number}"), ["n1/a", "n2/a"][usize::from(number % 2)]);
            let place = cluster.lab.place(pod).unwrap();
            let ips = [format!("10.96.3.{number}"), format!("fd00:10:96::3:{number}")];
            let service = Service::new(&name)
                .cluster_ips(&ips[0], &ips[1])
                .port("u", "UDP", PORT, TARGET)
                .port("t", "TCP", PORT, TARGET);
            let slices = Family::ALL.map(|family| {
                let slice =
                    Slice::of(&name, family).port("u", "UDP", TARGET).port("t", "TCP", TARGET);
                Value::from(slice.pod(&place))
            });
            cluster
                .write(&format!("{name}.yaml"), [Value::from(service)].into_iter().chain(slices));
            let vips = ips.map(|ip| (at(ip.parse::<IpAddr>().unwrap(), PORT), pod));
            for (vip, _) in vips {
                let from = cluster.lab.pod("n1", "b");
                cluster.eventually("answers", &from, &Probe::tcp(vip), |o| o.all_answered());
            }
            vips
        })
        .collect()
}

/// Web on one pod and `dns` on another or the same.
fn two_services(web: &str, dns: &str) -> Cluster {
    let cluster = Cluster::new(&[web]);
    write_other(&cluster, dns);
    cluster
}

/// By family, and v4-mapped: web, `dns`, and the pod n2/a itself.
fn triples(cluster: &Cluster) -> Vec<[SocketAddr; 3]> {
    let pods = cluster.lab.pod("n2", "a").addresses().both().map(|ip| at(ip, TARGET));
    let mut all: Vec<_> = (0..2).map(|i| [vips()[i], other()[i], pods[i]]).collect();
    all.push(all[0].map(mapped));
    all
}

fn any(like: SocketAddr) -> SocketAddr {
    let any = if like.is_ipv4() { "0.0.0.0" } else { "::" };
    at(any.parse::<IpAddr>().unwrap(), 0)
}

fn udp(from: &Place, like: SocketAddr) -> Stepped {
    from.socket(Transport::UdpUnconnected, any(like)).unwrap()
}

/// An answer of a pod, as if it came from there.
fn by(server: &str, source: SocketAddr) -> Seen {
    Seen::Answered { server: server.to_owned(), source: Some(source) }
}

fn failed(errno: &str) -> Seen {
    Seen::Failed(errno.to_owned())
}

/// Has the socket do these things one after the other.
fn sees(socket: &Stepped, steps: impl IntoIterator<Item = (Step, Seen)>) {
    for (i, (step, wanted)) in steps.into_iter().enumerate() {
        assert_eq!(socket.step(step).unwrap(), wanted, "step {i}: {step:?}");
    }
}

fn everywhere(cluster: &Cluster) -> [std::sync::Arc<Place>; 2] {
    [cluster.lab.pod("n1", "b"), cluster.lab.node("n1")]
}

/// From each of them to each of [`triples`].
fn everywhere_to_all(cluster: &Cluster) -> Vec<(std::sync::Arc<Place>, [SocketAddr; 3])> {
    let from = everywhere(cluster).into_iter();
    from.flat_map(|from| {
        triples(cluster).into_iter().map(move |to| (std::sync::Arc::clone(&from), to))
    })
    .collect()
}

#[test]
fn a_connected_udp_socket_shows_its_peer_after_a_datagram_to_another_service() {
    for dns in ["n1/a", "n2/a"] {
        let cluster = two_services("n2/a", dns);
        for (from, [web, other, _]) in everywhere_to_all(&cluster) {
            let socket = udp(&from, web);
            // Its answer comes from another pod than the one that it is connected to, if it is one.
            let of_other = if dns == "n2/a" { by(dns, web) } else { failed("timeout") };
            sees(
                &socket,
                [
                    (Step::Connect(web), Seen::Done),
                    (Step::Ask, by("n2/a", web)),
                    (Step::AskAt(other), of_other.clone()),
                    (Step::Peer, Seen::Peer(web)),
                    (Step::Ask, by("n2/a", web)),
                    (Step::AskAt(web), by("n2/a", web)),
                    (Step::AskAt(other), of_other),
                    (Step::AskAt(web), by("n2/a", web)),
                    (Step::Peer, Seen::Peer(web)),
                ],
            );
            socket.close().unwrap();
        }
    }
}

/// Sockets that connect while web has no backend hear this pod once it is one.
fn are_served_later(cluster: &Cluster, sockets: &[(Stepped, SocketAddr)], pod: &str) {
    for (socket, to) in sockets {
        sees(socket, [(Step::Connect(*to), Seen::Done)]);
    }
    cluster.web(&[pod], json!({}));
    for (socket, to) in sockets {
        wait_until(
            || socket.step(Step::Ask).unwrap() == by(pod, *to),
            || format!("{to} is not served:\n{}", cluster.logs()),
        );
    }
}

#[test]
fn a_udp_socket_connects_to_whatever_it_likes_and_is_refused_once_it_sends() {
    let cluster = Cluster::new(&[]);
    let node_ports = cluster.lab.node("n1").addresses().both().map(|ip| at(ip, NODE_PORT));
    for from in everywhere(&cluster) {
        let unknown = vips().map(|vip| at(vip.ip(), PORT + 7));
        for to in vips().into_iter().chain(unknown).chain(node_ports).chain([mapped(vips()[0])]) {
            let socket = udp(&from, to);
            // No second try where the first one told why.
            let steps = [
                (Step::Connect(to), Seen::Done),
                (Step::Peer, Seen::Peer(to)),
                (Step::Ask, failed("ECONNREFUSED")),
            ];
            sees(&socket, steps);
            socket.close().unwrap();
        }
    }
    // One that was connected early is served once there is a backend.
    let sockets: Vec<_> = everywhere(&cluster)
        .iter()
        .flat_map(|from| vips().into_iter().chain(node_ports).map(|to| (udp(from, to), to)))
        .collect();
    are_served_later(&cluster, &sockets, "n2/a");
}

#[test]
fn msq_05_a_pod_answers_itself_by_an_unconnected_socket() {
    let cluster = Cluster::new(&[]);
    let pod = cluster.lab.pod("n1", "a");
    // Connected when there was no backend, so that it goes by packets: the server sees the frontend as its client.
    let sockets = vips().map(|vip| (udp(&pod, vip), vip));
    are_served_later(&cluster, &sockets, "n1/a");
}

#[test]
fn an_unconnected_udp_socket_has_the_right_answer_from_any_number_of_services() {
    let cluster = Cluster::new(&["n2/a"]);
    let services = many(&cluster);
    for from in everywhere(&cluster) {
        for family in 0..2 {
            let socket = udp(&from, services[0][family].0);
            let steps = services.iter().chain(services.iter().rev()).cycle().take(40);
            sees(
                &socket,
                steps
                    .map(|service| service[family])
                    .map(|(to, pod)| (Step::AskAt(to), by(pod, to))),
            );
            socket.close().unwrap();
        }
    }
}

#[test]
fn a_bound_port_reaches_the_same_pod_through_two_services() {
    let cluster = Cluster::new(&["n2/a"]);
    let services = many(&cluster);
    for from in everywhere(&cluster) {
        for transport in [Transport::Tcp, Transport::UdpConnected] {
            for (family, port) in [(0, 41_000), (1, 42_000)] {
                // Both are on the same pod.
                let held: Vec<_> = [&services[0], &services[2], &services[4]]
                    .map(|service| from.hold(Hold::new(transport, service[family].0).port(port)))
                    .into_iter()
                    .map(Result::unwrap)
                    .collect();
                for held in held {
                    let report = held.stop().unwrap();
                    assert!(report.is_flawless(), "{} {report:?}", from.name());
                }
            }
        }
    }
}

#[test]
fn what_it_is_connected_to_decides_when_a_socket_is_closed() {
    let cluster = two_services("n2/a", "n1/a");
    let sockets: Vec<_> = everywhere(&cluster)
        .iter()
        .flat_map(|from| {
            triples(&cluster).into_iter().map(|t| (udp(from, t[0]), t)).collect::<Vec<_>>()
        })
        .collect();
    for (socket, [web, other, _]) in &sockets {
        sees(
            socket,
            [
                (Step::Connect(*web), Seen::Done),
                (Step::Ask, by("n2/a", *web)),
                // Whoever is asked in between is remembered beside its peer, not in its place.
                (Step::AskAt(*other), failed("timeout")),
            ],
        );
    }
    write_other(&cluster, "n2/b");
    for (socket, [web, ..]) in &sockets {
        sees(socket, [(Step::Ask, by("n2/a", *web))]);
    }
    cluster.web(&["n1/a"], json!({}));
    for (socket, _) in &sockets {
        cluster.wait("an error", || {
            let seen = socket.step(Step::Ask).unwrap();
            seen == failed("EDESTADDRREQ") || seen == failed("ECONNABORTED")
        });
    }
}

#[test]
fn a_dissolved_socket_has_forgotten_its_peer() {
    let cluster = two_services("n2/a", "n2/a");
    for (from, [web, other, pod]) in everywhere_to_all(&cluster) {
        let socket = udp(&from, web);
        sees(
            &socket,
            [
                (Step::Connect(web), Seen::Done),
                (Step::Ask, by("n2/a", web)),
                (Step::Dissolve, Seen::Done),
                (Step::Peer, failed("ENOTCONN")),
                (Step::AskAt(pod), by("n2/a", pod)),
                (Step::AskAt(other), by("n2/a", other)),
                (Step::AskAt(web), by("n2/a", web)),
                (Step::Connect(other), Seen::Done),
                (Step::Peer, Seen::Peer(other)),
                (Step::Ask, by("n2/a", other)),
                (Step::Dissolve, Seen::Done),
                (Step::Connect(pod), Seen::Done),
                (Step::Peer, Seen::Peer(pod)),
                (Step::Ask, by("n2/a", pod)),
            ],
        );
        let socket = from.socket(Transport::Tcp, any(web)).unwrap();
        let answered = Seen::Answered { server: "n2/a".to_owned(), source: None };
        for to in [web, pod, web] {
            sees(
                &socket,
                [
                    (Step::Connect(to), Seen::Done),
                    (Step::Peer, Seen::Peer(to)),
                    (Step::Ask, answered.clone()),
                    (Step::Dissolve, Seen::Done),
                    (Step::Peer, failed("ENOTCONN")),
                ],
            );
        }
    }
}

#[test]
fn a_udp_socket_shows_what_it_dialled_last_of_a_pod() {
    let cluster = two_services("n2/a", "n2/a");
    for (from, [web, other, pod]) in everywhere_to_all(&cluster) {
        let socket = udp(&from, web);
        sees(
            &socket,
            [web, pod, web, other, web, pod, other, pod, pod, web, other]
                .map(|to| (Step::AskAt(to), by("n2/a", to))),
        );
        let connected = [web, pod, other, web, pod];
        sees(
            &socket,
            connected.into_iter().flat_map(|to| {
                [
                    (Step::Connect(to), Seen::Done),
                    (Step::Peer, Seen::Peer(to)),
                    (Step::Ask, by("n2/a", to)),
                    // It asks the same pod, and what it is connected to has answered.
                    (Step::AskAt(pod), by("n2/a", to)),
                    (Step::AskAt(other), by("n2/a", to)),
                ]
            }),
        );
    }
}

#[test]
fn np_01_sockets_bound_to_loopback_reach_a_nodeport() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let host = cluster.lab.node("n1");
    for (from, to) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.9.9.9"),
        ("127.1.2.3", "127.0.0.1"),
        ("::1", "::1"),
    ] {
        let [from, to] = [from, to].map(|ip| ip.parse::<IpAddr>().unwrap());
        for transport in [Transport::Tcp, Transport::UdpConnected, Transport::UdpUnconnected] {
            let probe = Probe::new(transport, at(to, NODE_PORT)).from(at(from, 0)).count(6);
            let outcome = host.probe(probe).unwrap();
            let what = format!("{transport:?} from {from} to {to}: {outcome}");
            assert!(outcome.all_answered(), "{what}");
            assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{what}");
            let seen = if transport == Transport::UdpUnconnected {
                outcome.sources()
            } else {
                outcome.peers()
            };
            assert_eq!(seen, [at(to, NODE_PORT)].into(), "{what}");
        }
    }
    // What listens there beside it is left alone.
    host.serve_at(&["127.0.0.1".parse().unwrap()], 9000, None).unwrap();
    for transport in [Transport::Tcp, Transport::UdpConnected] {
        let probe = Probe::new(transport, at([127, 0, 0, 1], 9000)).from(at([127, 0, 0, 1], 0));
        assert_eq!(host.probe(probe).unwrap().servers(), [("n1", 1)].into(), "{transport:?}");
    }
    cluster.web(&[], json!({}));
    let probe = Probe::tcp(at([127, 0, 0, 1], NODE_PORT)).from(at([127, 0, 0, 1], 0));
    cluster.eventually("refused", &host, &probe, kproxy_lab::Outcome::all_refused);
}
