//! What other programs do to a node, and what a node lacks.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use crate::common::{Cluster, NODE_PORT, PATIENCE, at, vips};
use kproxy_lab::{Family, Outcome, Probe, ProxySpec, Source};
use serde_json::json;

#[test]
fn a_flushed_nftables_ruleset_is_repaired() {
    // The far backend needs the masquerade of the table.
    let cluster = Cluster::with_arguments(&["n2/a"], json!({}), &["--snat", "netfilter"]);
    let (node, client) = (cluster.lab.node("n1"), cluster.lab.client());
    let probe = Probe::tcp(at(node.ip(Family::V4), NODE_PORT)).timeout(PATIENCE / 30);
    assert!(client.probe(probe.clone()).unwrap().all_answered());
    node.run("nft", &["flush", "ruleset"]).unwrap();
    cluster.eventually("after the flush", &client, &probe, Outcome::all_answered);
    assert!(node.run("nft", &["list", "tables"]).unwrap().contains("inet kproxy"));
    assert!(cluster.proxies[0].log().contains("written again"), "{}", cluster.logs());
}

#[test]
fn without_nft_the_rest_works_and_the_lack_is_reported_until_it_is_mended() {
    let mut cluster = Cluster::new(&["n1/a"]);
    cluster.proxies[0].remove().unwrap();
    // kproxy with a PATH that has no nft in it yet.
    let bin = cluster.lab.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let (kproxy, wrapper) = (kproxy_lab::kproxy().unwrap(), bin.join("start"));
    let script =
        format!("#!/bin/sh\nPATH='{}'\nexec '{}' \"$@\"\n", bin.display(), kproxy.display());
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = ProxySpec::kproxy(Source::Manifests).binary(&wrapper).args(["--snat", "netfilter"]);
    cluster.proxies[0] = cluster.lab.start_proxy("n1", spec).unwrap();

    let (pod, client) = (cluster.lab.pod("n1", "b"), cluster.lab.client());
    let node_port = Probe::tcp(at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT));
    assert!(pod.probe(Probe::tcp(vips()[0])).unwrap().all_answered());
    assert!(client.probe(node_port.clone()).unwrap().all_answered(), "a backend on this node");
    let problems = || {
        let status = cluster.try_kproxy("n1", &["status", "-o", "json"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        status["problems"].to_string()
    };
    cluster.wait("the problem", || problems().contains("nftables table inet kproxy"));

    let nft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].map(PathBuf::from);
    symlink(nft.iter().find(|path| path.exists()).unwrap(), bin.join("nft")).unwrap();
    cluster.wait("no problem", || problems() == "[]");
    cluster.web(&["n2/a"], serde_json::json!({}));
    let far = |outcome: &Outcome| outcome.servers() == [("n2/a", 1)].into();
    cluster.eventually("a backend elsewhere", &client, &node_port, far);
}
