//! In place of kube-proxy: its name, its configuration, its rights, its DaemonSet.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use kproxy_lab::kubernetes::KUBEADM_KUBE_PROXY;
use kproxy_lab::manifest::{Service, slices};
use kproxy_lab::{Family, Lab, Mode, Outcome, POD_PORT, Probe, ProxySpec};
use serde_json::{Value, json};

use crate::common::at;

/// kproxy under kube-proxy's name, in the node's run folder's neighbour.
fn kube_proxy_by_name(lab: &Lab) -> PathBuf {
    let folder = lab.run_dir("n1").with_file_name("bin");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("kube-proxy");
    symlink(kproxy_lab::kproxy().unwrap(), &program).unwrap();
    program
}

#[test]
fn under_kube_proxys_name_with_its_file_and_rights_it_serves() {
    let lab = Lab::builder().build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    let local = json!({"externalIPs": ["203.0.113.77"]});
    let web = Service::new("web").of_type("NodePort").port("http", "TCP", 80, POD_PORT);
    let web = api.apply_object(web.node_port(30_090).spec(local)).unwrap();
    for slice in slices("web", "http", "TCP", POD_PORT, &[&lab.pod("n1", "a")]) {
        api.apply_object(slice).unwrap();
    }

    // As the lab starts the real one: `--config FILE`, the kubeconfig of system:kube-proxy in it.
    let program = kube_proxy_by_name(&lab);
    let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
    let spec = ProxySpec::kube_proxy(Mode::Iptables)
        .binary(&program)
        .config(json!({
            "conntrack": {"tcpCloseWaitTimeout": "7m"}, "logging": {"format": "json"},
            "nodePortAddresses": null, "ipvs": {"strictARP": true}, "unheardOf": 1,
        }))
        .args([
            flag("bpffs-root", lab.bpffs("n1")),
            flag("run-dir", lab.run_dir("n1")),
            flag("cgroup-root", lab.node_cgroup("n1")),
            "--hostname_override=N1".to_owned(),
            "--serve-external-ips=false".to_owned(),
        ]);
    let proxy = lab.start_proxy("n1", spec).unwrap();

    let (pod, client, node) = (lab.pod("n1", "b"), lab.client(), lab.node("n1"));
    let vip = web["spec"]["clusterIP"].as_str().unwrap().parse::<IpAddr>().unwrap();
    pod.probe_until(&Probe::tcp(at(vip, 80)), Outcome::all_answered).unwrap();
    let node_port = node.at(Family::V4, 30_090);
    client.probe_until(&Probe::tcp(node_port), Outcome::all_answered).unwrap();
    let dump = lab.kproxy_command("n1", "dump").unwrap().arg("frontends").output().unwrap();
    assert!(!String::from_utf8_lossy(&dump.stdout).contains("203.0.113.77"), "{dump:?}");

    let metrics = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10_249);
    let config = node.http_get(metrics, "/configz").unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let config = &config["kubeproxy.config.k8s.io"];
    assert_eq!(config["hostnameOverride"], "n1", "{config}");
    assert_eq!(config["conntrack"]["tcpCloseWaitTimeout"], "7m0s", "{config}");
    let setting = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    assert_eq!(node.run("cat", &[setting]).unwrap().trim(), "420");

    // One line for each that is nothing here, and every line is JSON.
    let log = proxy.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let warned = |path: &str| {
        let is = |line: &&Value| {
            line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains(path))
        };
        lines.iter().filter(is).count()
    };
    assert_eq!([warned("mode "), warned("ipvs.strictARP"), warned("unheardOf")], [1; 3], "{log}");
    // The rights are enough: nothing is reported.
    let status = lab.kproxy_command("n1", "status").unwrap().args(["-o", "json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["problems"], json!([]), "{status}");

    // `kube-proxy --cleanup`
    proxy.remove().unwrap();
    client.probe_until(&Probe::tcp(node_port), |outcome| outcome.answered() == 0).unwrap();
}

/// The patches change what they say and leave kubeadm's arguments, ConfigMap and account.
#[test]
fn the_patches_fit_the_daemon_set_of_kubeadm() {
    let lab = Lab::builder().nodes(1).build().unwrap();
    let control = lab.start_control_plane().unwrap();
    let api = control.api();
    let before = api.apply(KUBEADM_KUBE_PROXY).unwrap().remove(0);
    let patched = |text| {
        let set = api.patch_file("apps/v1/DaemonSet", "kube-system", "kube-proxy", text).unwrap();
        set["spec"]["template"]["spec"].clone()
    };
    let before = &before["spec"]["template"]["spec"];
    let names = |list: &Value, key: &str| -> Vec<String> {
        let names =
            list.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned());
        names.collect()
    };

    let spec = patched(include_str!("../../../deploy/kubeadm/kube-proxy.yaml"));
    let [container] = spec["containers"].as_array().unwrap().as_slice() else {
        panic!("one container: {spec}");
    };
    let old = &before["containers"][0];
    assert_eq!(container["image"], "kproxy:latest");
    for kept in ["command", "env", "securityContext"] {
        assert_eq!(container[kept], old[kept], "{kept}");
    }
    for kept in ["serviceAccountName", "hostNetwork", "tolerations", "priorityClassName"] {
        assert_eq!(spec[kept], before[kept], "{kept}");
    }
    let mounts = names(&container["volumeMounts"], "name");
    let volumes = names(&spec["volumes"], "name");
    for name in ["kube-proxy", "bpffs", "cgroup", "netns", "run"] {
        assert!(mounts.iter().any(|mount| mount == name), "{name}: {mounts:?}");
        assert!(volumes.iter().any(|volume| volume == name), "{name}: {volumes:?}");
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["exec"]["command"][1], "status", "{probe}");
    }

    let spec = patched(include_str!("../../../deploy/kubeadm/go-back.yaml"));
    let find = |name: &str| {
        let all = spec["containers"].as_array().unwrap();
        all.iter().find(|container| container["name"] == name).unwrap().clone()
    };
    let (kube_proxy, kproxy) = (find("kube-proxy"), find("kproxy"));
    assert_eq!(kube_proxy["image"], old["image"]);
    assert_eq!(kube_proxy["command"], old["command"]);
    assert!(kube_proxy.get("livenessProbe").is_none(), "{kube_proxy}");
    assert_eq!(kproxy["args"], json!(["cleanup", "--drain", "--timeout", "10m", "--stay"]));
}
