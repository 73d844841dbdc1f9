//! Starting, stopping and killing proxies, shown with a stand-in for kproxy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kproxy_lab::manifest::{Service, slices, yaml};
use kproxy_lab::{Lab, ProxySpec, Source};

/// A program that says what kproxy says, and how it was started.
fn stand_in(lab: &Lab, body: &str) -> PathBuf {
    let path = lab.dir().join("stand-in");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\" >&2\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn kproxy_is_run_in_the_node_and_started_again_after_every_end() {
    let lab = Lab::builder().build().unwrap();
    let body = "grep CapEff /proc/self/status >&2; cat /proc/self/cgroup >&2; ip -4 addr >&2
        echo 'INFO in sync services=0' >&2; [ $1 = cleanup ] || exec sleep 1000";
    let program = stand_in(&lab, body);
    let spec = ProxySpec::kproxy(Source::Manifests).binary(&program).args(["--max-flows", "9"]);
    let proxy = lab.start_proxy("n1", spec).unwrap();
    let log = proxy.log();
    for words in [
        "run --manifests",
        "--hostname-override n1 --cluster-cidr 10.244.0.0/16,fd00:10:244::/48",
        "--max-flows 9",
        "172.18.0.11",
        &format!("0::/kproxy-lab-{}/n1/host", lab.id()),
        &lab.bpffs("n1").display().to_string(),
    ] {
        assert!(log.contains(words), "`{words}` in {log}");
    }
    assert!(lab.start_proxy("n1", ProxySpec::kproxy(Source::Manifests)).is_err());
    assert!(!proxy.stop().unwrap().success());
    assert!(!proxy.is_running());
    assert!(proxy.stop().is_err());
    proxy.start().unwrap();
    proxy.kill().unwrap();
    proxy.start().unwrap();
    proxy.remove().unwrap();

    let spec = ProxySpec::kproxy(Source::Manifests).binary(&program);
    let proxy = lab.start_proxy("n1", spec.capabilities(&["net_admin", "CAP_BPF"])).unwrap();
    // CAP_NET_ADMIN is bit 12, CAP_BPF bit 39.
    assert!(proxy.log().contains("CapEff:\t0000008000001000"), "{}", proxy.log());
}

#[test]
fn a_proxy_that_ends_early_is_told_with_its_log() {
    let lab = Lab::builder().build().unwrap();
    let program = stand_in(&lab, "echo no such map >&2; exit 3");
    let spec = ProxySpec::kproxy(Source::Manifests).binary(&program);
    let error = format!("{:#}", lab.start_proxy("n1", spec).unwrap_err());
    assert!(error.contains("no such map") && error.contains("exit status: 3"), "{error}");
}

#[test]
fn manifests_are_put_and_removed_in_one_step() {
    let lab = Lab::builder().build().unwrap();
    let service = Service::new("web").port("http", "TCP", 80, 8080);
    let [v4, v6] = slices("web", "http", "TCP", 8080, &[&lab.pod("n1", "a")]);
    let text = yaml([service.into(), v4.into(), serde_json::Value::from(v6)]).unwrap();
    lab.write_manifest("web.yaml", &text).unwrap();
    assert_eq!(fs::read_to_string(lab.manifests().join("web.yaml")).unwrap(), text);
    lab.remove_manifest("web.yaml").unwrap();
    assert!(lab.remove_manifest("web.yaml").is_err());
}
