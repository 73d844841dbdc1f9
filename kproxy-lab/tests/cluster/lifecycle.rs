//! Restart, crash, upgrade in place and removal, with connections that notice any loss.

use std::fs;
use std::process::Stdio;

use crate::common::{Cluster, NODE_PORT, PORT, SILENCE, at, vips, wait_until};
use kproxy_lab::{Family, Held, Hold, Probe, Transport};
use serde_json::json;

/// Long-lived connections over every path.
fn connections(cluster: &Cluster) -> Vec<Held> {
    let node_port = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    let (pod, client) = (cluster.lab.pod("n1", "b"), cluster.lab.client());
    let mut held = Vec::new();
    for transport in [Transport::Tcp, Transport::UdpConnected, Transport::UdpUnconnected] {
        // Two each, so that a backend on the node and one elsewhere are both in use.
        for _ in 0..2 {
            held.push(pod.hold(Hold::new(transport, vips()[0])).unwrap());
            held.push(client.hold(Hold::new(transport, node_port)).unwrap());
        }
    }
    held
}

#[test]
fn lc_02_lc_04_stop_crash_and_restart_lose_nothing_and_write_nothing() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let held = connections(&cluster);
    let proxy = &cluster.proxies[0];
    let pod = cluster.lab.pod("n1", "b");
    for end in ["stop", "kill"] {
        if end == "stop" {
            assert!(proxy.stop().unwrap().success(), "{}", proxy.log());
        } else {
            proxy.kill().unwrap();
        }
        // New connections work with the daemon dead.
        let outcome = pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap();
        assert!(outcome.all_answered(), "after {end}: {outcome}");
        proxy.start().unwrap();
        let log = proxy.log();
        assert!(log.contains("writes=0"), "after {end}: {log}");
    }
    for held in held {
        let report = held.stop().unwrap();
        assert!(report.is_flawless(), "{report:?}");
    }
}

#[test]
fn changes_made_while_the_daemon_was_dead_are_the_only_ones_applied() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    cluster.other("api", "10.96.0.11", "fd00:10:96::b", &["n2/a"]);
    let pod = cluster.lab.pod("n1", "b");
    let api = at("10.96.0.11".parse::<std::net::IpAddr>().unwrap(), PORT);
    cluster.eventually("api", &pod, &Probe::tcp(api), kproxy_lab::Outcome::all_answered);
    let proxy = &cluster.proxies[0];
    proxy.kill().unwrap();
    cluster.lab.remove_manifest("api.yaml").unwrap();
    cluster.web(&["n2/b"], json!({}));
    assert!(pod.probe(Probe::tcp(api)).unwrap().all_answered(), "frozen, but answering");
    proxy.start().unwrap();
    let outcome = pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap();
    assert_eq!(outcome.servers(), [("n2/b", 4)].into());
    let outcome = pod.probe(Probe::tcp(api).timeout(SILENCE)).unwrap();
    assert_eq!(outcome.answered(), 0);
    let frontends = cluster.kproxy("n1", &["dump", "frontends"]);
    assert!(frontends.contains("default/web") && !frontends.contains("default/api"), "{frontends}");
}

#[test]
fn a_manifest_that_is_broken_at_start_loses_nothing() {
    let cluster = Cluster::new(&["n1/a"]);
    let (pod, proxy) = (cluster.lab.pod("n1", "b"), &cluster.proxies[0]);
    proxy.kill().unwrap();
    cluster.lab.write_manifest("web.yaml", "kind: [broken").unwrap();
    proxy.start().unwrap();
    assert!(pod.probe(Probe::tcp(vips()[0])).unwrap().all_answered(), "{}", proxy.log());
    // The others go on.
    cluster.other("api", "10.96.0.11", "fd00:10:96::b", &["n2/a"]);
    let api = at("10.96.0.11".parse::<std::net::IpAddr>().unwrap(), PORT);
    cluster.eventually("api", &pod, &Probe::tcp(api), kproxy_lab::Outcome::all_answered);
    // Gone on purpose is gone.
    cluster.lab.remove_manifest("web.yaml").unwrap();
    let silent = Probe::tcp(vips()[0]).timeout(SILENCE);
    cluster.eventually("removed", &pod, &silent, |o| o.answered() == 0);
}

#[test]
fn cleanup_removes_every_trace() {
    // With a table of nftables, which the programs' own source NAT does without.
    let cluster = Cluster::with_arguments(&["n1/a"], json!({}), &["--snat", "netfilter"]);
    let proxy = &cluster.proxies[0];
    let host = cluster.lab.node("n1");
    let tables = || host.run("nft", &["list", "tables"]).unwrap();
    assert!(tables().contains("inet kproxy"));
    let refused = cluster.try_kproxy("n1", &["cleanup"]);
    assert_eq!(refused.status.code(), Some(2), "a running daemon is not pulled the rug from");
    assert!(proxy.stop().unwrap().success());
    cluster.kproxy("n1", &["cleanup"]);
    assert!(!tables().contains("kproxy"), "{}", tables());
    // The kernel's own maps.debug and progs.debug are in every BPF file system.
    let left: Vec<_> = fs::read_dir(cluster.lab.bpffs("n1"))
        .unwrap()
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with(".debug"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let left: Vec<_> = fs::read_dir(cluster.lab.run_dir("n1")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    // No program is left on a hook: nothing answers any more, and nothing is refused.
    let pod = cluster.lab.pod("n1", "b");
    let outcome = pod.probe(Probe::tcp(vips()[0]).timeout(SILENCE)).unwrap();
    assert_eq!((outcome.answered(), outcome.refused()), (0, 0), "{outcome}");
    // A second cleanup finds nothing and is content; kproxy starts again from nothing.
    cluster.kproxy("n1", &["cleanup"]);
    proxy.start().unwrap();
    assert!(pod.probe(Probe::tcp(vips()[0])).unwrap().all_answered());
}

#[test]
fn a_drain_lets_go_on_what_is_open_and_opens_nothing_new() {
    // One backend on the node, so that a NodePort's connection is translated here alone.
    let cluster = Cluster::new(&["n1/a"]);
    let proxy = &cluster.proxies[0];
    let client = cluster.lab.client();
    let node_port = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    let held = client.hold(Hold::tcp(node_port)).unwrap();
    let dialogue = client.hold(Hold::udp(node_port)).unwrap();
    for probe in [Probe::tcp(node_port), Probe::udp(node_port)] {
        assert!(client.probe(probe).unwrap().all_answered());
    }
    let refused = cluster.try_kproxy("n1", &["cleanup", "--drain"]);
    assert_eq!(refused.status.code(), Some(2), "not beside a running daemon");
    assert!(proxy.stop().unwrap().success());
    let mut command = cluster.lab.kproxy_command("n1", "cleanup").unwrap();
    command.args(["--drain", "--timeout", "5m"]).stdout(Stdio::piped());
    let draining = command.spawn().unwrap();
    // Nobody else has rules here: what is new reaches no backend.
    cluster.eventually("drained", &client, &Probe::tcp(node_port).timeout(SILENCE), |outcome| {
        outcome.answered() == 0
    });
    let pod = cluster.lab.pod("n1", "b");
    assert_eq!(pod.probe(Probe::tcp(vips()[0]).timeout(SILENCE)).unwrap().answered(), 0);
    let busy = cluster.try_kproxy("n1", &["cleanup", "--drain"]);
    assert!(String::from_utf8_lossy(&busy.stderr).contains("another kproxy is at work"));
    for held in [held, dialogue] {
        let before = held.report().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(7));
        let after = held.stop().unwrap();
        assert!(after.is_flawless() && after.answered > before.answered, "{before:?} {after:?}");
    }
    let output = draining.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let open = text.find("open; nothing new is translated");
    let over = text.find("nothing is translated any more").expect("it ends by itself");
    assert!(open.is_some_and(|open| open < over), "{text}");
    assert!(text[over..].contains("removed "), "{text}");
}

#[test]
fn one_object_that_cannot_be_used_does_not_stop_the_others() {
    let cluster = Cluster::new(&["n1/a"]);
    let pod = cluster.lab.pod("n1", "b");
    cluster.lab.write_manifest("broken.yaml", "kind: Service\n  nonsense: [").unwrap();
    cluster
        .lab
        .write_manifest(
            "bad.yaml",
            "apiVersion: v1
kind: Service
metadata: {name: bad-address}
spec: {clusterIP: 10.96.0.999, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: bad-protocol}
spec: {clusterIP: 10.96.0.51, ports: [{port: 80, protocol: QUIC}]}
---
apiVersion: v1
kind: Service
metadata: {name: bad-port}
spec: {clusterIP: 10.96.0.52, ports: [{port: 0}]}
---
apiVersion: v1
kind: Service
metadata: {name: no-match}
spec: {clusterIP: 10.96.0.53, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: no-match-1, labels: {kubernetes.io/service-name: no-match}}
addressType: IPv4
ports: [{name: other, port: 8080}]
endpoints: [{addresses: [10.244.1.11]}]
",
        )
        .unwrap();
    cluster.other("api", "10.96.0.11", "fd00:10:96::b", &["n2/a"]);
    let api = at("10.96.0.11".parse::<std::net::IpAddr>().unwrap(), PORT);
    cluster.eventually("api", &pod, &Probe::tcp(api), kproxy_lab::Outcome::all_answered);
    let status = || {
        let status = cluster.try_kproxy("n1", &["status", "-o", "json"]);
        String::from_utf8(status.stdout).unwrap()
    };
    // A file that cannot be read may be one that is being written, for a moment.
    for name in ["bad-address", "bad-protocol", "bad-port", "no-match", "broken.yaml"] {
        wait_until(
            || status().contains(name),
            || format!("{name} in {}\n{}", status(), cluster.logs()),
        );
    }
    assert!(pod.probe(Probe::tcp(vips()[0])).unwrap().all_answered());
    // Mended objects lose their problem.
    cluster.lab.remove_manifest("bad.yaml").unwrap();
    cluster.lab.remove_manifest("broken.yaml").unwrap();
    // Until the daemon has seen it, the answer is "not in order".
    let status = || {
        let told = cluster.try_kproxy("n1", &["status", "-o", "json"]).stdout;
        String::from_utf8_lossy(&told).into_owned()
    };
    let is_mended = |status: String| !status.contains("bad-") && !status.contains("broken.yaml");
    wait_until(|| is_mended(status()), status);
}
