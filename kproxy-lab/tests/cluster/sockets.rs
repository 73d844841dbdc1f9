//! The socket path with real sockets: pods and hosts dial ClusterIPs and NodePorts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::common::{
    Cluster, NODE_PORT, PORT, SILENCE, TARGET, TRANSPORTS, VIPS, at, has_mptcp, vips,
};
use kproxy_lab::manifest::{Service, Slice};
use kproxy_lab::{Family, Outcome, Probe, Seen, Step, Transport, mapped};
use serde_json::{Value, json};

#[test]
fn svc_01_ver_02_pods_and_hosts_reach_a_clusterip_in_every_way() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    for from in [cluster.lab.pod("n1", "b"), cluster.lab.node("n1"), cluster.lab.pod("n2", "a")] {
        for transport in TRANSPORTS {
            let [v4, v6] = vips();
            for to in [v4, v6, mapped(v4)] {
                let outcome = from.probe(Probe::new(transport, to).count(8)).unwrap();
                let what = format!("{} {transport:?} {to}: {outcome}", from.name());
                assert!(outcome.all_answered(), "{what}");
                assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{what}");
                // The socket sees what it dialled, not the backend.
                if transport == Transport::UdpUnconnected {
                    assert_eq!(outcome.sources(), [to].into(), "{what}");
                } else {
                    assert_eq!(outcome.peers(), [to].into(), "{what}");
                }
            }
        }
    }
}

#[test]
fn msq_13_the_backend_sees_the_pods_own_address() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let pod = cluster.lab.pod("n1", "b");
    for (to, own) in vips().into_iter().zip(pod.addresses().both()) {
        let outcome = pod.probe(Probe::tcp(to).count(6)).unwrap();
        assert_eq!(outcome.clients(), [own].into(), "{outcome}");
    }
    // MSQ-05: a pod that is its own backend reaches itself.
    let own = cluster.lab.pod("n1", "a");
    let outcome = own.probe(Probe::tcp(vips()[0]).count(6)).unwrap();
    assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{outcome}");
}

#[test]
fn np_01_np_11_nodeports_answer_on_every_node_address_and_on_loopback() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let host = cluster.lab.node("n1");
    let mut own: Vec<_> = host.addresses().both().map(|ip| at(ip, NODE_PORT)).to_vec();
    // The bridge's address is an address of the node, too.
    own.push(at(Ipv4Addr::new(10, 244, 1, 1), NODE_PORT));
    let mut from_host = own.clone();
    from_host.push(at(Ipv4Addr::LOCALHOST, NODE_PORT));
    from_host.push(at(Ipv4Addr::new(127, 9, 9, 9), NODE_PORT));
    from_host.push(at(Ipv6Addr::LOCALHOST, NODE_PORT));
    for transport in TRANSPORTS {
        for to in &from_host {
            let outcome = host.probe(Probe::new(transport, *to).count(4)).unwrap();
            assert_eq!(outcome.server_set().len(), 2, "host {transport:?} {to}: {outcome}");
        }
        for to in &own {
            let outcome =
                cluster.lab.pod("n1", "b").probe(Probe::new(transport, *to).count(4)).unwrap();
            assert_eq!(outcome.server_set().len(), 2, "pod {transport:?} {to}: {outcome}");
        }
        // Another node's NodePort: that node's packet path answers.
        let far = at(cluster.lab.node("n2").ip(Family::V4), NODE_PORT);
        let outcome =
            cluster.lab.pod("n1", "b").probe(Probe::new(transport, far).count(4)).unwrap();
        assert!(outcome.all_answered(), "pod {transport:?} {far}: {outcome}");
    }
}

#[test]
fn a_pods_loopback_is_its_own() {
    let cluster = Cluster::new(&["n1/a"]);
    let pod = cluster.lab.pod("n1", "b");
    for ip in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
        let outcome = pod.probe(Probe::tcp(at(ip.parse::<IpAddr>().unwrap(), NODE_PORT)));
        assert!(outcome.unwrap().all_refused(), "{ip}");
    }
}

#[test]
fn ver_01_ver_11_no_endpoints_means_refused_at_once() {
    let cluster = Cluster::new(&[]);
    for from in [cluster.lab.pod("n1", "b"), cluster.lab.node("n1")] {
        for transport in TRANSPORTS {
            let node = from.name().contains('/').then(|| cluster.lab.node("n1"));
            let node = node.as_deref().unwrap_or(&from);
            let mut frontends = vips().to_vec();
            frontends.extend(node.addresses().both().map(|ip| at(ip, NODE_PORT)));
            frontends.push(mapped(vips()[0]));
            for to in frontends {
                let outcome = from.probe(Probe::new(transport, to)).unwrap();
                assert!(outcome.all_refused(), "{} {transport:?} {to}: {outcome}", from.name());
            }
        }
    }
    let counted = cluster.dump("n1", "counters").to_string();
    assert!(counted.contains("no-backend"), "{counted}");
}

#[test]
fn ver_16_ver_17_an_unknown_port_or_protocol_of_a_clusterip_is_refused() {
    let cluster = Cluster::new(&["n1/a"]);
    for to in VIPS.map(|ip| at(ip.parse::<IpAddr>().unwrap(), PORT + 1)) {
        for transport in TRANSPORTS {
            let outcome = cluster.lab.pod("n1", "b").probe(Probe::new(transport, to)).unwrap();
            assert!(outcome.all_refused(), "{transport:?} {to}: {outcome}");
        }
    }
}

#[test]
fn ver_04_internal_policy_local_uses_this_nodes_pods_or_stays_silent() {
    let cluster = Cluster::with(&["n1/a"], json!({"internalTrafficPolicy": "Local"}));
    let near = cluster.lab.pod("n1", "b").probe(Probe::tcp(vips()[0]).count(4)).unwrap();
    assert_eq!(near.servers(), [("n1/a", 4)].into());
    for from in [cluster.lab.pod("n2", "b"), cluster.lab.node("n2")] {
        for to in vips() {
            for transport in TRANSPORTS {
                let probe = Probe::new(transport, to).timeout(SILENCE);
                let outcome = from.probe(probe).unwrap();
                // A host's UDP socket may be told that its datagram was dropped (ENOBUFS).
                let silent = outcome.answered() + outcome.refused() == 0;
                assert!(silent, "{} {transport:?} {to}: {outcome}", from.name());
            }
        }
    }
    // VER-13: the policy says nothing about NodePorts.
    let node_port = at(cluster.lab.node("n2").ip(Family::V4), NODE_PORT);
    let outcome = cluster.lab.pod("n2", "b").probe(Probe::tcp(node_port)).unwrap();
    assert!(outcome.all_answered(), "{outcome}");
}

#[test]
fn what_is_no_service_is_left_alone() {
    let cluster = Cluster::new(&["n1/a"]);
    let pod = cluster.lab.pod("n1", "b");
    for to in cluster.lab.pod("n2", "b").addresses().both().map(|ip| at(ip, TARGET)) {
        for transport in TRANSPORTS {
            let outcome = pod.probe(Probe::new(transport, to)).unwrap();
            assert_eq!(outcome.servers(), [("n2/b", 1)].into(), "{transport:?} {to}");
            let seen: Vec<SocketAddr> =
                outcome.peers().into_iter().chain(outcome.sources()).collect();
            assert!(seen.iter().all(|seen| *seen == to), "{seen:?}");
        }
    }
    // A port of the node that is no NodePort belongs to whoever listens there.
    let host = cluster.lab.node("n1");
    host.serve(9000).unwrap();
    let own = at(host.ip(Family::V4), 9000);
    let outcome = pod.probe(Probe::tcp(own)).unwrap();
    assert_eq!(outcome.servers(), [("n1", 1)].into(), "{outcome}");
}

#[test]
fn an_unconnected_udp_socket_stays_on_its_backend_while_that_lives() {
    let cluster = Cluster::new(&["n1/a", "n2/a", "n2/b"]);
    let pod = cluster.lab.pod("n1", "b");
    for to in vips() {
        let probe = Probe::udp_unconnected(to).count(30).same_socket();
        let outcome = pod.probe(probe).unwrap();
        assert!(outcome.all_answered() && outcome.server_set().len() == 1, "{outcome}");
    }
    // It moves when its backend goes, and only then.
    let held = pod.hold(kproxy_lab::Hold::new(Transport::UdpUnconnected, vips()[0])).unwrap();
    let first: String = held.report().unwrap().servers.into_keys().next().unwrap();
    let others: Vec<&str> =
        ["n1/a", "n2/a", "n2/b"].into_iter().filter(|name| *name != first).collect();
    let with_it = [first.as_str(), others[0]];
    cluster.web(&with_it, json!({}));
    let probe = Probe::udp(vips()[0]).count(8);
    cluster.eventually("third backend gone", &pod, &probe, |o| !o.server_set().contains(others[1]));
    let answered = held.report().unwrap().answered;
    cluster.eventually("the socket goes on", &pod, &probe, |_| {
        held.report().unwrap().answered > answered + 5
    });
    assert_eq!(held.report().unwrap().servers.len(), 1, "{:?}", held.report().unwrap());
    cluster.web(&others, json!({}));
    cluster.eventually("the socket moves", &pod, &probe, |_| {
        held.report().unwrap().servers.len() == 2
    });
    let report = held.stop().unwrap();
    assert_eq!(report.lost, 0, "{report:?}");
}

#[test]
fn pkt_01_connections_are_spread_evenly() {
    let cluster = Cluster::new(&["n1/a", "n1/b", "n2/a", "n2/b"]);
    let outcome = cluster.lab.node("n1").probe(Probe::tcp(vips()[0]).count(200)).unwrap();
    let servers = outcome.servers();
    // Round robin on each CPU: at most one turn of difference for each of them.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let spread = servers.values().max().unwrap() - servers.values().min().unwrap();
    assert!(servers.len() == 4 && spread <= cpus, "{servers:?}");
}

#[test]
fn two_services_and_their_ports_do_not_mix() {
    let cluster = Cluster::new(&["n1/a"]);
    cluster.other("api", "10.96.0.11", "fd00:10:96::b", &["n2/a"]);
    let pod = cluster.lab.pod("n1", "b");
    let api = at("10.96.0.11".parse::<IpAddr>().unwrap(), PORT);
    cluster.eventually("the new Service answers", &pod, &Probe::tcp(api).count(4), |outcome| {
        outcome.servers() == [("n2/a", 4)].into()
    });
    let outcome = pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap();
    assert_eq!(outcome.servers(), [("n1/a", 4)].into());
    cluster.lab.remove_manifest("api.yaml").unwrap();
    cluster.eventually("it is gone", &pod, &Probe::tcp(api).timeout(SILENCE), |outcome| {
        outcome.answered() == 0
    });
}

#[test]
fn mptcp_sockets_see_what_they_dialled() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    if !has_mptcp() {
        return;
    }
    for from in [cluster.lab.pod("n1", "b"), cluster.lab.node("n1")] {
        let [v4, v6] = vips();
        for to in [v4, v6, mapped(v4)] {
            let outcome = from.probe(Probe::new(Transport::Mptcp, to).count(8)).unwrap();
            let what = format!("{} {to}: {outcome}", from.name());
            assert!(outcome.all_answered(), "{what}");
            assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{what}");
            assert_eq!(outcome.peers(), [to].into(), "{what}");
        }
    }
}

/// The kernel connects each subflow with a socket of its own, to the backend.
#[test]
fn an_mptcp_socket_shows_what_it_dialled_when_a_subflow_joins() {
    const SERVED: u16 = 9999;
    const JOINING: &str = "10.244.1.200";
    let cluster = Cluster::new(&["n1/a"]);
    if !has_mptcp() {
        return;
    }
    let (client, server) = (cluster.lab.pod("n1", "b"), cluster.lab.pod("n2", "a"));
    server.serve_mptcp(SERVED).unwrap();
    let service = Service::new("mp").cluster_ips("10.96.0.77", "fd00:10:96::77");
    let algorithm = json!({"annotations": {"kproxy.dev/lb-algorithm": "least-connections"}});
    let service = service.port("web", "TCP", PORT, SERVED).metadata(algorithm);
    let slice = Slice::of("mp", Family::V4).port("web", "TCP", SERVED).pod(&server);
    cluster.write("mp.yaml", [Value::from(service), slice.into()]);
    let to = at([10, 96, 0, 77], PORT);
    cluster.eventually("it answers", &client, &Probe::tcp(to), Outcome::all_answered);
    for place in [&client, &server] {
        place.run("ip", &["mptcp", "limits", "set", "subflow", "2"]).unwrap();
    }
    client.run("ip", &["address", "add", &format!("{JOINING}/24"), "dev", "eth0"]).unwrap();
    client.run("ip", &["mptcp", "endpoint", "add", JOINING, "dev", "eth0", "subflow"]).unwrap();

    let count = || -> Option<u64> {
        let rows = cluster.dump("n1", "backends");
        let of = |row: &&Value| row["service"]["name"] == "mp";
        rows.as_array().unwrap().iter().filter(of).map(|row| row["connections"].as_u64()).sum()
    };
    let socket = client.socket(Transport::Mptcp, at([0, 0, 0, 0], 0)).unwrap();
    assert_eq!(socket.step(Step::Connect(to)).unwrap(), Seen::Done);
    let answer = Seen::Answered { server: "n2/a".to_owned(), source: None };
    let joined = || {
        assert_eq!(socket.step(Step::Ask).unwrap(), answer);
        let connections = server.run("cat", &["/proc/net/tcp"]).unwrap();
        // 10.244.1.200, established.
        connections.lines().any(|line| line.contains("C801F40A:") && line.contains(" 01 "))
    };
    cluster.wait("a subflow has joined", joined);
    assert_eq!(socket.step(Step::Peer).unwrap(), Seen::Peer(to));
    assert_eq!(count(), Some(1));
    socket.close().unwrap();
    cluster.wait("closed", || count() == Some(0));
}

#[test]
fn sockets_are_shown_with_their_process_pod_frontend_and_backend() {
    let cluster = Cluster::new(&["n1/a"]);
    let lab = &cluster.lab;
    let shown = |arguments: &[&str]| -> Vec<Value> {
        let mut command = lab.kproxy_command("n1", "sockets").unwrap();
        let output = command.args(["-o", "json"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let cases = [
        (Transport::Tcp, VIPS[0], ["TCP", "established", "connect"]),
        (Transport::Tcp, VIPS[1], ["TCP", "established", "connect"]),
        (Transport::UdpConnected, VIPS[1], ["UDP", "connected", "connect"]),
        (Transport::UdpUnconnected, VIPS[0], ["UDP", "unconnected", "send"]),
    ];
    for place in [lab.pod("n1", "b"), lab.node("n1")] {
        for (transport, vip, wanted) in cases {
            let to = at(vip.parse::<IpAddr>().unwrap(), PORT);
            let held = place.hold(kproxy_lab::Hold::new(transport, to)).unwrap();
            let rows = shown(&["--service", "web", "--address", vip]);
            let of_it = |row: &&Value| row["protocol"] == wanted[0];
            let row = rows.iter().find(of_it).unwrap_or_else(|| panic!("{to}: {rows:#?}"));
            let words = ["protocol", "state", "told_by"].map(|key| row[key].as_str().unwrap());
            let backend = lab.pod("n1", "a").at(Family::of(to.ip()), TARGET);
            assert_eq!((words, &row["service"]["name"]), (wanted, &json!("web")), "{row}");
            assert_eq!(row["frontend"], to.to_string());
            assert_eq!(row["backend"], backend.to_string());
            let owner = &row["processes"][0];
            assert_eq!(owner["name"], "kproxy-lab", "{row}");
            let pod = row["pod"].as_str().unwrap_or_default();
            assert_eq!(pod.ends_with("-n1-b"), place.name() == "n1/b", "{row}");
            assert!(row["cgroup_path"].as_str().unwrap().contains("/n1/"), "{row}");
            let pid = owner["pid"].to_string();
            assert!(shown(&["--pid", &pid, "--port", "80"]).contains(row));
            assert_eq!(shown(&["--pid", &pid, "--service", "other"]), [] as [Value; 0]);
            held.stop().unwrap();
        }
    }
}
