//! kproxy's image in a container as deploy/kproxy.yaml has it: the runtime's own seccomp profile, a read-only root,
//! four capabilities, the folders of the node.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use kproxy_lab::image::{Architecture, Image};
use kproxy_lab::{CLUSTER_CIDRS, Hold, Lab, Place, Probe, Process};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, at, vips, wait_until};
use crate::rights::{granted, mask, of_threads};

const IMAGE: &str = "example.org/kproxy:test";
/// Name of the container.
const ID: &str = "kproxy";

/// A containerd on a node.
struct Containerd {
    host: Arc<Place>,
    socket: String,
    /// Where its clients keep pipes.
    pipes: String,
    /// Cgroup of its container, in every hierarchy; it goes with the lab.
    cgroup: String,
    process: Process,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Nothing is there if all went well.
        let _gone = self.try_ctr(&["task", "delete", "--force", ID]);
    }
}

impl Containerd {
    fn start(lab: &Lab) -> Self {
        let host = lab.node("n1");
        let dir = host.dir().unwrap().join("containerd");
        fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| dir.join(name).display().to_string();
        let (socket, config, pipes) = (path("socket"), path("config.toml"), path("pipes"));
        let settings = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']\n\
             [grpc]\naddress = '{socket}'\n[ttrpc]\naddress = '{socket}.ttrpc'\n",
            path("root"),
            path("state")
        );
        fs::write(&config, settings).unwrap();
        // What it mounts goes with it. Sockets of its shims are always in /run/containerd.
        let script = format!(
            "mkdir -p /run/containerd && mount -t tmpfs shims /run/containerd && \
             exec containerd --config '{config}'"
        );
        let mut command = host.command("unshare").unwrap();
        command.args(["--mount", "--propagation", "slave", "sh", "-c", &script]);
        let process = host.process("containerd", command).unwrap();
        process.launch().unwrap();
        let is_up = || Ok(process.log().contains("containerd successfully booted"));
        process.wait_until("the start", is_up).unwrap();
        let cgroup = format!("kproxy-lab-{}-container", lab.id());
        Self { host, socket, pipes, cgroup, process }
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        self.try_ctr(arguments).unwrap()
    }

    fn try_ctr(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.host.run("ctr", &[&["--address", &self.socket], arguments].concat())
    }

    /// A container that is not started yet.
    fn container(&self, arguments: &[String]) -> Process {
        let mut command = self.host.command("ctr").unwrap();
        command
            .args(["--address", &self.socket, "run", "--rm", "--fifo-dir", &self.pipes])
            .args(["--cgroup", &self.cgroup])
            .args(arguments);
        self.host.process("container", command).unwrap()
    }

    /// Runs a program in the container; whether it succeeded, and what it said.
    fn exec(&self, name: &str, command: &[&str]) -> (bool, String) {
        let mut ctr = self.host.command("ctr").unwrap();
        ctr.args(["--address", &self.socket, "task", "exec", "--fifo-dir", &self.pipes]);
        ctr.args(["--exec-id", name, ID]).args(command);
        let output = ctr.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Process id of the container's first process.
    fn pid(&self) -> u32 {
        let list = self.ctr(&["task", "list"]);
        let line = list.lines().find(|line| line.starts_with(ID)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// What deploy/kproxy.yaml says of the pod.
fn pod() -> Value {
    let text = include_str!("../../../deploy/kproxy.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let daemon_set = objects.into_iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    daemon_set["spec"]["template"]["spec"].clone()
}

/// The folder of a node of the lab for one of a real node.
fn folder(lab: &Lab, path: &str) -> PathBuf {
    match path {
        "/sys/fs/bpf" => lab.bpffs("n1"),
        "/sys/fs/cgroup" => lab.node_cgroup("n1"),
        "/run/kproxy" => lab.run_dir("n1"),
        // The same on every node of the lab, or by the namespace of who looks.
        "/run/netns" | "/proc/sys/net" => path.into(),
        _ => panic!("deploy/kproxy.yaml mounts {path}: say what it is in a lab"),
    }
}

/// Arguments of `ctr run` for what the kubelet asks the runtime for.
fn as_deployed(lab: &Lab) -> Vec<String> {
    let pod = pod();
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}));
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false, "as ctr does without being asked");
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(pod["hostNetwork"], true);
    let mut arguments: Vec<String> =
        ["--seccomp", "--read-only", "--net-host"].map(str::to_owned).into();
    // ctr has a container's usual ones, not none, to begin with.
    for name in USUAL.iter().filter(|name| !granted().contains(name)) {
        arguments.extend(["--cap-drop".to_owned(), format!("CAP_{name}")]);
    }
    for name in granted() {
        arguments.extend(["--cap-add".to_owned(), format!("CAP_{name}")]);
    }
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in container["volumeMounts"].as_array().unwrap() {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        let kind = &volume["hostPath"]["type"];
        assert!(kind == "Directory" || kind == "DirectoryOrCreate", "{volume}");
        let source = folder(lab, volume["hostPath"]["path"].as_str().unwrap());
        if kind == "DirectoryOrCreate" {
            fs::create_dir_all(&source).unwrap();
        }
        let target = mount["mountPath"].as_str().unwrap();
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        let propagation = match mount["mountPropagation"].as_str() {
            Some("HostToContainer") => ":rslave",
            None => "",
            Some(other) => panic!("propagation {other} of {target}"),
        };
        let source = source.display();
        arguments.extend([
            "--mount".to_owned(),
            format!("type=bind,src={source},dst={target},options=rbind:{access}{propagation}"),
        ]);
    }
    let manifests = lab.manifests();
    let manifests = manifests.display();
    arguments.extend([
        "--mount".to_owned(),
        format!("type=bind,src={manifests},dst=/manifests,options=rbind:ro"),
    ]);
    arguments
        .extend([IMAGE, ID, "/usr/bin/kproxy", "run", "--manifests=/manifests"].map(str::to_owned));
    arguments
        .extend(["--hostname-override=n1".to_owned(), format!("--cluster-cidr={CLUSTER_CIDRS}")]);
    arguments
}

/// What containerd grants without being asked (containerd, oci/spec.go, defaultUnixCaps).
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

#[test]
fn the_image_serves_with_what_deploy_grants_and_the_seccomp_profile_of_the_runtime() {
    let Some(arch) = Architecture::current() else {
        println!("not tried: no image for this processor");
        return;
    };
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    cluster.proxies[0].remove().unwrap();
    let lab = &cluster.lab;
    let archive = lab.dir().join("image.tar");
    let binary = kproxy_lab::kproxy().unwrap();
    Image { name: IMAGE.to_owned(), binary, arch, cached: true }.write(&archive).unwrap();
    let containerd = Containerd::start(lab);
    containerd.ctr(&["images", "import", archive.to_str().unwrap()]);
    let mut arguments = as_deployed(lab);
    // A node of the lab has no cgroup tree to itself, which would be found.
    arguments.push("--cgroup-root=/host/sys/fs/cgroup".to_owned());
    // So that it runs the image's nft.
    arguments.push("--snat=netfilter".to_owned());
    let container = containerd.container(&arguments);
    container.launch().unwrap();

    // As the kubelet's probes.
    let probes = std::cell::Cell::new(0);
    let probe = |kind: &str| {
        probes.set(probes.get() + 1);
        let name = format!("probe-{}", probes.get());
        containerd.exec(&name, &["/usr/bin/kproxy", "status", kind])
    };
    let is_ready =
        || Ok(containerd.ctr(&["task", "list"]).contains("RUNNING") && probe("--ready").0);
    container.wait_until("readiness", is_ready).unwrap();
    let (alive, said) = probe("--live");
    assert!(alive, "{said}");

    let pid = containerd.pid();
    assert_eq!(of_threads(pid, "Seccomp"), ["2".to_owned()].into(), "filtered");
    assert_eq!(of_threads(pid, "NoNewPrivs"), ["1".to_owned()].into());
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(of_threads(pid, set), [format!("{:016x}", mask(&granted()))].into(), "{set}");
    }
    // proc_pid_mountinfo(5): the fifth field is the mount point, the sixth how it is mounted.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|word| word == "ro"), "{root}");

    let status = || {
        containerd.exec(
            &format!("status-{}", probes.replace(probes.get() + 1)),
            &["/usr/bin/kproxy", "status", "-o", "json"],
        )
    };
    let (in_order, said) = status();
    assert!(in_order, "{said}\n{}", container.log());
    let host = lab.node("n1");
    assert!(host.run("nft", &["list", "tables"]).unwrap().contains("inet kproxy"), "{said}");
    let pod = lab.pod("n1", "b");
    for vip in vips() {
        cluster.eventually("ClusterIP", &pod, &Probe::tcp(vip).count(10), |outcome| {
            outcome.server_set() == ["n1/a", "n2/a"].into()
        });
    }
    for ip in host.addresses().both() {
        let probe = Probe::tcp(at(ip, NODE_PORT)).count(10);
        cluster.eventually("NodePort", &lab.client(), &probe, |outcome| {
            outcome.server_set() == ["n1/a", "n2/a"].into()
        });
    }
    // It enters the network namespaces of pods.
    let held = pod.hold(Hold::udp(vips()[0])).unwrap();
    cluster.web(&[], json!({}));
    let report = || held.report().unwrap();
    wait_until(
        || !report().errors.is_empty(),
        || format!("{:?}\n{}\n{}", report(), container.log(), status().1),
    );
    cluster.web(&["n1/a", "n2/a"], json!({}));
    cluster.eventually(
        "served again",
        &pod,
        &Probe::tcp(vips()[0]),
        kproxy_lab::Outcome::all_answered,
    );

    // The pod goes; the data path stays.
    container.stop().unwrap();
    assert!(pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap().all_answered());
    containerd.process.stop().unwrap();
}
