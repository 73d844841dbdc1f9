//! Session affinity with real sockets: pods, processes of the node, a client outside.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kproxy_lab::{Place, Probe, Transport, mapped};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, TRANSPORTS, at, vips};

const PODS: [&str; 4] = ["n1/a", "n1/b", "n2/a", "n2/b"];

fn client_ip(seconds: u32) -> Value {
    json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
    })
}

fn none() -> Value {
    json!({"sessionAffinity": "None"})
}

/// NodePorts of the first node.
fn node_ports(cluster: &Cluster) -> [SocketAddr; 2] {
    cluster.lab.node("n1").addresses().both().map(|ip| at(ip, NODE_PORT))
}

/// Who asks, and the frontends of one family that it can dial.
fn dialling(cluster: &Cluster) -> Vec<(Arc<Place>, Vec<Vec<SocketAddr>>)> {
    let inside: Vec<_> = vips()
        .into_iter()
        .zip(node_ports(cluster))
        .map(|(vip, node_port)| vec![vip, node_port, mapped(vip)])
        .collect();
    let outside: Vec<_> =
        vips().into_iter().zip(node_ports(cluster)).map(|(vip, port)| vec![vip, port]).collect();
    cluster.lab.route_services_via("n1").unwrap();
    vec![
        (cluster.lab.pod("n1", "b"), inside.clone()),
        (cluster.lab.node("n1"), inside),
        (cluster.lab.client(), outside),
    ]
}

/// The next ranges of a client's ports.
static PORTS: AtomicU32 = AtomicU32::new(0);

/// The one server of all that was asked; panics when there were more.
fn one_server(from: &Place, transport: Transport, frontends: &[SocketAddr]) -> String {
    let mut servers = BTreeSet::new();
    for to in frontends {
        if from.name() == "client" {
            // On the packet path a client port that still has a flow through this frontend keeps its backend,
            // and one that has a flow to the backend through another frontend goes to another: each call and
            // each frontend has ports of its own here.
            let first = 20_000 + PORTS.fetch_add(1, Ordering::Relaxed) % 400 * 100;
            let ports = format!("{first} {}", first + 99);
            let range = format!("net.ipv4.ip_local_port_range={ports}");
            from.run("sysctl", &["-qw", &range]).unwrap();
        }
        // AFF-10: 15 answers of one server.
        let outcome = from.probe(Probe::new(transport, *to).count(15)).unwrap();
        assert!(outcome.all_answered(), "{} {transport:?} {to}: {outcome}", from.name());
        servers.extend(outcome.server_set().into_iter().map(str::to_owned));
    }
    assert_eq!(servers.len(), 1, "{} {transport:?} {frontends:?}: {servers:?}", from.name());
    servers.into_iter().next().unwrap()
}

#[test]
fn aff_01_aff_09_aff_10_a_client_stays_with_one_server_on_all_frontends() {
    let cluster = Cluster::with(&PODS, client_ip(10_800));
    for (from, families) in dialling(&cluster) {
        for frontends in families {
            one_server(&from, Transport::Tcp, &frontends);
            // Sockets of both kinds are one client.
            let kinds = [Transport::UdpConnected, Transport::UdpUnconnected];
            let udp = kinds.map(|transport| one_server(&from, transport, &frontends));
            assert_eq!(udp[0], udp[1], "{}", from.name());
        }
    }
    // Every client is shown by name, each service port by itself.
    let rows = cluster.dump("n1", "affinity");
    let rows = rows.as_array().unwrap();
    let of =
        |wanted: &dyn Fn(&Value) -> bool| rows.iter().filter(|row| wanted(&row["client"])).count();
    assert_eq!(of(&|client| client == "node"), 4, "{rows:#?}");
    assert_eq!(of(&|client| client["netns"].is_u64()), 4, "{rows:#?}");
    for ip in cluster.lab.client().addresses().both() {
        assert_eq!(of(&|client| client["address"] == ip.to_string()), 2, "{rows:#?}");
    }
    for row in rows {
        assert_eq!((&row["service"]["name"], &row["port"]), (&json!("web"), &json!(8080)));
        assert!(row["expires_in_seconds"].as_u64().unwrap() > 10_000, "{row}");
    }
    let wide = cluster.kproxy("n1", &["dump", "services", "-o", "wide"]);
    assert!(wide.contains("3h"), "{wide}");
}

#[test]
fn aff_01_pods_are_clients_of_their_own() {
    let cluster = Cluster::with(&PODS, client_ip(10_800));
    for pod in ["a", "b"] {
        one_server(&cluster.lab.pod("n1", pod), Transport::Tcp, &vips()[..1]);
    }
    let rows = cluster.dump("n1", "affinity");
    let clients: BTreeSet<_> =
        rows.as_array().unwrap().iter().map(|row| row["client"]["netns"].as_u64()).collect();
    assert_eq!(clients.len(), 2, "{rows:#}");
}

#[test]
fn aff_02_a_client_is_forgotten_after_the_timeout() {
    let cluster = Cluster::with(&PODS, client_ip(1));
    let dialled =
        [(cluster.lab.pod("n1", "b"), vips()[0]), (cluster.lab.client(), node_ports(&cluster)[1])];
    for (from, to) in dialled {
        // Each is a new client and gets the next backend.
        let probe = Probe::tcp(to).count(8).pause(Duration::from_millis(1_050));
        let outcome = from.probe(probe).unwrap();
        assert!(outcome.server_set().len() > 1, "{} {to}: {outcome}", from.name());
    }
}

#[test]
fn aff_03_aff_04_only_backends_of_the_set_that_applies_are_used() {
    let cluster = Cluster::with(&PODS, client_ip(10_800));
    for (from, families) in dialling(&cluster) {
        for to in families.into_iter().map(|frontends| frontends[0]) {
            for transport in TRANSPORTS {
                cluster.web(&PODS, client_ip(10_800));
                let probe = Probe::new(transport, to);
                cluster.eventually("all", &from, &probe, |o| o.all_answered());
                let first = one_server(&from, transport, &[to]);
                let others: Vec<_> = PODS.into_iter().filter(|pod| *pod != first).collect();
                cluster.web(&others, client_ip(10_800));
                let what = format!("{} {transport:?} {to}", from.name());
                cluster.eventually(&what, &from, &probe, |o| {
                    o.all_answered() && !o.server_set().contains(first.as_str())
                });
                // The new one counts, also when the old one is back.
                let second = one_server(&from, transport, &[to]);
                cluster.web(&PODS, client_ip(10_800));
                cluster.wait("the endpoint is back", || {
                    let backends = cluster.dump("n1", "backends");
                    backends.as_array().unwrap().len() == 4 * PODS.len()
                });
                assert_eq!(one_server(&from, transport, &[to]), second, "{what}");
            }
        }
    }
}

#[test]
fn aff_07_affinity_is_switched_on_and_off_while_clients_connect() {
    let cluster = Cluster::new(&PODS);
    let dialling = dialling(&cluster);
    for round in [none(), client_ip(10_800), none(), client_ip(7_200), client_ip(60)] {
        cluster.web(&PODS, round.clone());
        let sticky = round["sessionAffinity"] == "ClientIP";
        for (from, families) in &dialling {
            for to in families.iter().flatten() {
                for transport in TRANSPORTS {
                    let probe = Probe::new(transport, *to).count(12);
                    let what = format!("{round} {transport:?} {to}");
                    cluster.eventually(&what, from, &probe, |o| {
                        o.all_answered() && (o.server_set().len() == 1) == sticky
                    });
                }
            }
        }
        let seconds = &round["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        for row in cluster.dump("n1", "services").as_array().unwrap() {
            assert_eq!(&row["affinity_seconds"], seconds, "{row}");
        }
    }
}

#[test]
fn aff_08_stop_crash_and_restart_keep_what_is_remembered() {
    let cluster = Cluster::with(&PODS, client_ip(10_800));
    let dialling = dialling(&cluster);
    let servers = || -> Vec<String> {
        let mut servers = Vec::new();
        for (from, families) in &dialling {
            for frontends in families {
                servers.extend(TRANSPORTS.map(|transport| one_server(from, transport, frontends)));
            }
        }
        servers
    };
    let before = servers();
    let proxy = &cluster.proxies[0];
    for end in ["stop", "kill"] {
        if end == "stop" {
            assert!(proxy.stop().unwrap().success(), "{}", proxy.log());
        } else {
            proxy.kill().unwrap();
        }
        assert_eq!(servers(), before, "with the daemon dead after {end}");
        proxy.start().unwrap();
        assert_eq!(servers(), before, "after {end} and start");
        assert!(proxy.log().contains("writes=0"), "{}", proxy.log());
    }
}
