//! The packet path with real packets: the client outside the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::common::{Cluster, NODE_PORT, SILENCE, TRANSPORTS, at, vips, wait_until};
use kproxy_lab::{Family, Held, Hold, Probe, Seen, Step, Transport};
use serde_json::json;

/// Who changes the source towards backends elsewhere.
const SNAT: [&str; 2] = ["bpf", "netfilter"];

#[test]
fn a_connection_is_reset_at_once_where_its_address_has_moved_to() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let client = cluster.lab.client();
    for to in vips() {
        cluster.lab.route_services_via("n1").unwrap();
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = client.socket(Transport::Tcp, any).unwrap();
        assert_eq!(socket.step(Step::Connect(to)).unwrap(), Seen::Done);
        assert!(matches!(socket.step(Step::Ask).unwrap(), Seen::Answered { .. }), "{to}");
        cluster.lab.route_services_via("n2").unwrap();
        assert_eq!(socket.step(Step::Ask).unwrap(), Seen::Failed("ECONNRESET".to_owned()));
        // A new one is served there.
        assert!(client.probe(Probe::tcp(to)).unwrap().all_answered());
    }
    assert!(cluster.kproxy("n2", &["dump", "counters"]).contains("no-flow"));
}

#[test]
fn ver_05_nodeport_from_outside_near_and_far_backends() {
    SNAT.into_iter().for_each(near_and_far_backends);
}

fn near_and_far_backends(snat: &str) {
    let cluster = Cluster::with_arguments(&["n1/a", "n2/a"], json!({}), &["--snat", snat]);
    let client = cluster.lab.client();
    for node in cluster.lab.nodes() {
        for ip in cluster.lab.node(&node).addresses().both() {
            for transport in TRANSPORTS {
                let to = at(ip, NODE_PORT);
                let outcome = client.probe(Probe::new(transport, to).count(8)).unwrap();
                let what = format!("{snat} {transport:?} {to}: {outcome}");
                assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
                assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{what}");
                for answer in outcome.answers() {
                    // On the node: the client's own address. Elsewhere: this node's.
                    let near = answer.server.starts_with(&node);
                    let wanted = if near { client.ip(Family::of(ip)) } else { ip };
                    assert_eq!(answer.client.ip(), wanted, "{what} by {}", answer.server);
                }
            }
        }
    }
    let table = cluster.lab.node("n1").run("nft", &["list", "tables"]).unwrap();
    assert_eq!(table.contains("inet kproxy"), snat == "netfilter", "{table}");
}

#[test]
fn connections_outlive_an_uplink_that_goes_down_or_is_renamed() {
    for policy in ["Cluster", "Local"] {
        let spec = json!({"externalTrafficPolicy": policy});
        let pods: &[&str] = if policy == "Local" { &["n1/a"] } else { &["n1/a", "n2/a"] };
        let cluster = Cluster::with(pods, spec);
        let (client, node) = (cluster.lab.client(), cluster.lab.node("n1"));
        let hold = Hold::new(Transport::Tcp, node.at(Family::V4, NODE_PORT))
            .pause(Duration::from_millis(50))
            .timeout(Duration::from_secs(30));
        let held: Vec<_> = (0..8).map(|_| client.hold(hold.clone()).unwrap()).collect();
        let answered = |held: &Held| held.report().unwrap().answered;
        // IPv4 addresses stay with a device that goes down; whoever set the routes sets them again.
        for change in [
            "ip link set eth0 down; sleep 1; ip link set eth0 up",
            "ip link set eth0 name wan0",
            "ip link set wan0 down; ip link set wan0 name eth0; sleep 1; ip link set eth0 up",
        ] {
            let restore = if change.contains("up") {
                "echo \"$routes\" | sed s/wan0/eth0/ | while read route; do ip route replace $route; done"
            } else {
                ":"
            };
            let script = format!("routes=$(ip -4 route | grep via); {change}; {restore}");
            node.run("sh", &["-c", &script]).unwrap();
            let before: Vec<_> = held.iter().map(answered).collect();
            let goes_on =
                || held.iter().zip(&before).all(|(held, before)| answered(held) > *before);
            wait_until(goes_on, || {
                let reports: Vec<_> = held.iter().map(|held| held.report().unwrap()).collect();
                format!("{policy}, {change}: {reports:?}\n{}", cluster.logs())
            });
        }
        cluster.eventually("new ones", &client, &Probe::tcp(node.at(Family::V4, NODE_PORT)), |o| {
            o.all_answered()
        });
        let status = cluster.kproxy("n1", &["status"]);
        assert!(status.contains("eth0") && !status.contains("wan0"), "{status}");
    }
}

#[test]
fn a_udp_client_outside_may_rest_for_longer_than_netfilter_remembers() {
    let cluster = Cluster::with_arguments(&["n2/a"], json!({}), &["--snat", "netfilter"]);
    let (client, node) = (cluster.lab.client(), cluster.lab.node("n1"));
    let forget = "for file in /proc/sys/net/netfilter/nf_conntrack_udp_timeout*; do \
                  echo 3 > $file; done";
    node.run("sh", &["-c", forget]).unwrap();
    for round in 0..2 {
        if round > 0 {
            std::thread::sleep(Duration::from_secs(5));
        }
        for family in Family::ALL {
            let probe = Probe::new(Transport::UdpConnected, node.at(family, NODE_PORT))
                .from((client.ip(family), 45_000))
                .timeout(SILENCE);
            // The second one comes while the connection is known.
            for _ in 0..2 {
                let outcome = client.probe(probe.clone()).unwrap();
                assert!(outcome.all_answered(), "{family:?}: {outcome}\n{}", cluster.logs());
            }
        }
    }
}

#[test]
fn ver_21_large_datagrams_come_through_in_fragments() {
    for snat in SNAT {
        let cluster = Cluster::with_arguments(&["n1/a", "n2/a"], json!({}), &["--snat", snat]);
        let client = cluster.lab.client();
        for ip in cluster.lab.node("n1").addresses().both() {
            for transport in [Transport::UdpConnected, Transport::UdpUnconnected] {
                for bytes in [1600, 6000, 40_000] {
                    let probe = Probe::new(transport, at(ip, NODE_PORT)).count(4).padding(bytes);
                    let outcome = client.probe(probe).unwrap();
                    let what = format!("{snat} {transport:?} {ip} {bytes}: {outcome}");
                    assert!(outcome.all_answered(), "{what}\n{}", cluster.logs());
                    assert_eq!(outcome.server_set(), ["n1/a", "n2/a"].into(), "{what}");
                }
            }
        }
    }
}

#[test]
fn pkt_12_a_clusterip_routed_to_a_node_from_outside() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    cluster.lab.route_services_via("n1").unwrap();
    for to in vips() {
        for transport in TRANSPORTS {
            let outcome = cluster.lab.client().probe(Probe::new(transport, to).count(6)).unwrap();
            assert!(outcome.all_answered(), "{transport:?} {to}: {outcome}\n{}", cluster.logs());
            assert_eq!(outcome.server_set().len(), 2, "{transport:?} {to}: {outcome}");
        }
    }
}

#[test]
fn large_transfers_survive_segmentation_offload_and_checksums() {
    SNAT.into_iter().for_each(large_transfers);
}

fn large_transfers(snat: &str) {
    let cluster = Cluster::with_arguments(&["n1/a", "n2/a"], json!({}), &["--snat", snat]);
    let client = cluster.lab.client();
    for ip in cluster.lab.node("n1").addresses().both() {
        let to = at(ip, NODE_PORT);
        let outcome = client.probe(Probe::tcp(to).count(4).padding(2_000_000)).unwrap();
        assert!(outcome.all_answered(), "{to}: {outcome}");
        assert_eq!(outcome.server_set().len(), 2);
        let outcome = client.probe(Probe::udp(to).count(4).padding(1200)).unwrap();
        assert!(outcome.all_answered(), "{to}: {outcome}");
    }
}

#[test]
fn ver_01_no_endpoints_is_refused_for_the_client_too() {
    let cluster = Cluster::new(&[]);
    cluster.lab.route_services_via("n1").unwrap();
    let mut frontends = vips().to_vec();
    frontends.extend(cluster.lab.node("n1").addresses().both().map(|ip| at(ip, NODE_PORT)));
    for to in frontends {
        for transport in [Transport::Tcp, Transport::UdpConnected] {
            let outcome = cluster.lab.client().probe(Probe::new(transport, to)).unwrap();
            assert!(outcome.all_refused(), "{transport:?} {to}: {outcome}\n{}", cluster.logs());
        }
        // More than the kernel's limit on ICMP errors lets through: TCP is reset instead.
        let outcome = cluster.lab.client().probe(Probe::tcp(to).count(20)).unwrap();
        assert!(outcome.all_refused(), "{to}: {outcome}");
    }
}

#[test]
fn ver_06_ver_07_external_policy_local() {
    let cluster = Cluster::with(&["n1/a"], json!({"externalTrafficPolicy": "Local"}));
    let client = cluster.lab.client();
    for ip in cluster.lab.node("n1").addresses().both() {
        let outcome = client.probe(Probe::tcp(at(ip, NODE_PORT)).count(4)).unwrap();
        assert_eq!(outcome.servers(), [("n1/a", 4)].into());
        assert_eq!(outcome.clients(), [client.ip(Family::of(ip))].into());
    }
    for ip in cluster.lab.node("n2").addresses().both() {
        for transport in TRANSPORTS {
            let probe = Probe::new(transport, at(ip, NODE_PORT)).timeout(SILENCE);
            assert_eq!(client.probe(probe).unwrap().timeouts(), 1, "{transport:?} {ip}");
        }
        // Pods and the node itself are inside: they get every backend.
        for from in [cluster.lab.pod("n2", "b"), cluster.lab.node("n2")] {
            let outcome = from.probe(Probe::tcp(at(ip, NODE_PORT))).unwrap();
            assert!(outcome.all_answered(), "{} {ip}: {outcome}", from.name());
        }
    }
}

#[test]
fn node_05_new_addresses_and_devices_are_served_at_once() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let (client, host) = (cluster.lab.client(), cluster.lab.node("n1"));
    host.run("ip", &["address", "add", "172.18.0.99/24", "dev", "eth0"]).unwrap();
    let to = at("172.18.0.99".parse::<IpAddr>().unwrap(), NODE_PORT);
    cluster.eventually("a new address", &client, &Probe::tcp(to).count(4).timeout(SILENCE), |o| {
        o.all_answered()
    });
    host.run("ip", &["address", "del", "172.18.0.99/24", "dev", "eth0"]).unwrap();
    // A device that comes later is served, and forgotten when it goes.
    host.run("ip", &["link", "add", "late0", "type", "vxlan", "id", "7", "dstport", "4799"])
        .unwrap();
    host.run("ip", &["address", "add", "10.99.0.1/24", "dev", "late0"]).unwrap();
    host.run("ip", &["link", "set", "late0", "up"]).unwrap();
    // Its exit code says that something is amiss as long as one direction is not attached yet.
    let status = || {
        let output = cluster.try_kproxy("n1", &["status", "-o", "json"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let is_served = || status()["devices"].to_string().contains("late0");
    cluster.wait("it is served", is_served);
    cluster.wait("all is in order", || status()["in_order"] == true);
    host.run("ip", &["link", "delete", "late0"]).unwrap();
    cluster.wait("it is not served any more", || !is_served());
    cluster.wait("all is in order", || status()["in_order"] == true);
}

#[test]
fn flows_get_another_source_once_the_node_has_lost_theirs() {
    let cluster = Cluster::new(&["n2/a"]);
    let (client, host) = (cluster.lab.client(), cluster.lab.node("n1"));
    let old = host.ip(Family::V4);
    let [new, third] = ["172.18.0.50", "172.18.0.51"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let address = |what: &str, ip: IpAddr| {
        host.run("ip", &["address", what, &format!("{ip}/24"), "dev", "eth0"]).unwrap();
    };
    // The others stay when the first one goes.
    host.run("sysctl", &["-qw", "net.ipv4.conf.eth0.promote_secondaries=1"]).unwrap();
    address("add", new);
    address("add", third);
    let to = at(new, NODE_PORT);
    cluster.eventually("it is served", &client, &Probe::tcp(to), |o| o.all_answered());
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let socket = client.socket(Transport::Tcp, any).unwrap();
    assert_eq!(socket.step(Step::Connect(to)).unwrap(), Seen::Done);
    // One flow, asked again and again from the same port.
    let probe = Probe::udp(to).ports(21_000).timeout(SILENCE);
    assert_eq!(client.probe(probe.clone()).unwrap().clients(), [old].into());
    // What its uplink has besides is nothing to it.
    address("del", third);
    assert_eq!(client.probe(probe.clone()).unwrap().clients(), [old].into());
    address("del", old);
    cluster.eventually("another source", &client, &probe, |o| o.clients() == [new].into());
    assert_eq!(socket.step(Step::Ask).unwrap(), Seen::Failed("ECONNRESET".to_owned()));
}

#[test]
fn ct_06_ct_07_udp_flows_leave_a_removed_backend() {
    let cluster = Cluster::new(&["n1/a"]);
    let client = cluster.lab.client();
    let to = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    let hold = Hold::udp(to).timeout(Duration::from_millis(200));
    let held = client.hold(hold).unwrap();
    cluster.wait("it is answered", || held.report().unwrap().answered > 3);
    cluster.web(&["n2/a"], json!({}));
    let is_answered = || held.report().unwrap().servers.contains_key("n2/a");
    cluster.wait("n2/a answers", is_answered);
    // Also when no backend is left, and back again.
    cluster.web(&[], json!({}));
    let probe = Probe::udp(to);
    cluster.eventually("refused", &client, &probe, kproxy_lab::Outcome::all_refused);
    // The way back stays a while, for answers under way.
    let is_flow = || {
        let rows = cluster.dump("n1", "flows");
        let rows = rows.as_array().unwrap();
        rows.iter().any(|row| row["protocol"] == "UDP" && row["halves"] != "reverse-only")
    };
    cluster.wait("the flow is forgotten", || !is_flow());
    cluster.web(&["n1/b"], json!({}));
    let is_answered = || held.report().unwrap().servers.contains_key("n1/b");
    cluster.wait("n1/b answers", is_answered);
}

#[test]
fn flows_are_shown_with_names_and_states() {
    let cluster = Cluster::new(&["n1/a"]);
    let to = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    let held = cluster.lab.client().hold(Hold::tcp(to)).unwrap();
    let dump = cluster.kproxy("n1", &["dump", "flows", "-o", "wide"]);
    for words in ["default/web:tcp", "established", "192.0.2.", "10.244.1.", "172.18.0."] {
        assert!(dump.contains(words), "{words} in {dump}");
    }
    held.stop().unwrap();
    cluster.wait("the flow is closed", || {
        cluster.dump("n1", "flows").to_string().contains("time-wait")
    });
}
