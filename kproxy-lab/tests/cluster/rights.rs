//! Rights: what a process without any can do to the data path, which the daemon keeps, and what it says of its token.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Cluster, vips, wait_until};
use kproxy_lab::{Hold, Lab, Probe, ProxySpec, Source};
use serde_json::json;

#[test]
fn who_has_no_rights_neither_reads_nor_changes_anything() {
    let cluster = Cluster::new(&["n1/a"]);
    let bpffs = cluster.lab.bpffs("n1");
    let pins = bpffs.join("kproxy");
    let mode = fs::metadata(&pins).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "only root enters {}", pins.display());
    // As a process of a pod is, and although it sees the node's files, which a pod does not.
    let program = kproxy_lab::kproxy().unwrap();
    let (program, bpffs) = (program.to_str().unwrap(), bpffs.to_str().unwrap());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
    let (pod, run_dir) = (cluster.lab.pod("n1", "b"), cluster.lab.run_dir("n1"));
    for command in [&["dump", "services"][..], &["status"], &["cleanup", "--force"]] {
        let mut arguments = [&nobody[..], &["--inh-caps=-all", program], command].concat();
        arguments.extend(["--bpffs-root", bpffs]);
        if command[0] != "dump" {
            arguments.extend(["--run-dir", run_dir.to_str().unwrap()]);
        }
        let error = pod.run("setpriv", &arguments).unwrap_err().to_string();
        let refused = ["no permission", "Permission denied", "permission denied", "not permitted"];
        assert!(refused.iter().any(|words| error.contains(words)), "{command:?}: {error}");
    }
    assert!(pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap().all_answered());
}

/// Bits of capabilities (include/uapi/linux/capability.h), by the names of the deployed manifest.
const BITS: [(&str, u32); 7] = [
    ("DAC_READ_SEARCH", 2),
    ("NET_BIND_SERVICE", 10),
    ("NET_ADMIN", 12),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("PERFMON", 38),
    ("BPF", 39),
];

pub(crate) fn mask(names: &[&str]) -> u64 {
    let bit = |name: &&str| BITS.iter().find(|(other, _)| other == name).unwrap().1;
    names.iter().map(|name| 1 << bit(name)).fold(0, |mask, bit: u64| mask | bit)
}

/// What deploy/kproxy.yaml grants.
pub(crate) fn granted() -> Vec<&'static str> {
    let manifest = include_str!("../../../deploy/kproxy.yaml");
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "add:").skip(1);
    let list = lines.take_while(|line| line.starts_with(['-', '#']));
    list.filter_map(|line| line.strip_prefix("- ")).collect()
}

/// Lines of `status` of every thread of a process that begin so, without duplicates.
pub(crate) fn of_threads(pid: u32, field: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    // A thread may end meanwhile.
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let value = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    texts.map(value).collect()
}

#[test]
fn the_daemon_keeps_no_capability_that_it_has_no_use_for() {
    let granted = granted();
    assert_eq!(granted, ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"]);
    let useful = ["DAC_READ_SEARCH", "NET_BIND_SERVICE", "SYS_PTRACE"];
    let mut cluster =
        Cluster::with_arguments(&["n1/a", "n2/a"], json!({}), &["--snat", "netfilter"]);
    for limited in [false, true] {
        if limited {
            cluster.proxies[0].stop().unwrap();
            let spec = ProxySpec::kproxy(Source::Manifests).capabilities(&granted);
            let spec = spec.args(["--snat", "netfilter"]);
            cluster.proxies[0] = cluster.lab.start_proxy("n1", spec).unwrap();
        }
        let all = if limited { granted.clone() } else { [&granted[..], &useful].concat() };
        let wanted = BTreeSet::from([format!("{:016x}", mask(&all))]);
        let pid = cluster.proxies[0].pid().unwrap();
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(of_threads(pid, set), wanted, "{set}, limited: {limited}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(of_threads(pid, set), ["0".repeat(16)].into(), "{set}");
        }
        assert_eq!(of_threads(pid, "NoNewPrivs"), ["1".to_owned()].into());
        // It runs `nft`, and enters pods' network namespaces.
        let host = cluster.lab.node("n1");
        host.run("nft", &["delete", "table", "inet", "kproxy"]).unwrap();
        let tables = || host.run("nft", &["list", "tables"]).unwrap();
        cluster.wait("the table is written again", || tables().contains("inet kproxy"));
        let held = cluster.lab.pod("n1", "b").hold(Hold::udp(vips()[0])).unwrap();
        cluster.web(&[], json!({}));
        let report = || held.report().unwrap();
        wait_until(
            || !report().errors.is_empty(),
            || format!("{:?}\n{}", report(), cluster.logs()),
        );
        cluster.web(&["n1/a", "n2/a"], json!({}));
    }
}

#[test]
fn no_token_is_logged_however_much_is() {
    let lab = Lab::builder().build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let kubeconfig = control.kproxy_kubeconfig();
    let text = fs::read_to_string(kubeconfig).unwrap();
    let start = text.find("eyJ").expect("a token in the kubeconfig");
    let token: String =
        text[start..].chars().take_while(|c| !c.is_whitespace() && !"\"'".contains(*c)).collect();
    let secret = token.rsplit('.').next().unwrap();
    assert!(secret.len() > 40, "a signed token");
    // The client's own lines are off unless they are asked for by name.
    let level = "trace,kube_client=trace,kube_runtime=trace";
    let spec = ProxySpec::kproxy(Source::Api).args(["--log-level", level]);
    let proxy = lab.start_proxy("n1", spec.clone()).unwrap();
    let log = proxy.log();
    assert!(log.contains("kube_client") && log.contains("hyper"), "it says a lot: {log}");
    assert!(!log.contains(secret), "the token is logged");
    // Refused, and unreachable.
    proxy.stop().unwrap();
    let refused = lab.dir().join("refused");
    let other: String = secret.chars().rev().collect();
    fs::write(&refused, text.replace(secret, &other)).unwrap();
    let proxy = lab.launch_proxy("n1", spec.kubeconfig(&refused)).unwrap();
    proxy.wait_for_log("401").unwrap();
    control.stop_api_server().unwrap();
    proxy.wait_for_log("refused").unwrap();
    assert!(!proxy.log().contains(&other), "the token is logged");
    let status = lab.kproxy_command("n1", "status").unwrap().output().unwrap();
    assert!(!String::from_utf8_lossy(&status.stdout).contains(&other));
}
