//! Starts where something is missing: one sentence says what and what to do, or kproxy does with less and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::common::{Cluster, NODE_PORT, vips};
use kproxy_lab::{Family, Probe, ProxySpec, Source};
use serde_json::{Value, json};

/// setpriv(1): nothing but these capabilities.
const NO_RIGHTS: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all \
                         --inh-caps=-all";
const NO_PERFMON: &str = "setpriv --bounding-set=-all,+bpf,+net_admin --inh-caps=-all";
const NO_BPF: &str = "setpriv --bounding-set=-all,+net_admin,+perfmon --inh-caps=-all";
const NO_ADMIN: &str = "setpriv --bounding-set=-all,+bpf,+net_admin,+perfmon --inh-caps=-all";

/// A start that cannot succeed.
struct Case {
    /// What is missing, or in the way.
    taken: &'static str,
    /// Run before, in a mount namespace of kproxy's own.
    script: &'static str,
    /// Runs kproxy.
    runner: &'static str,
    /// Arguments beside the usual ones; those of the same name are left out.
    arguments: &'static [[&'static str; 2]],
    /// What is said, and what to do.
    says: [&'static str; 2],
}

const BPFFS: &str = "mount -t bpf bpf $W/bpf";
const CASES: &[Case] = &[
    Case {
        taken: "every right",
        script: BPFFS,
        runner: NO_RIGHTS,
        arguments: &[],
        says: [
            "capabilities are missing: CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON;",
            "run kproxy as root, or grant",
        ],
    },
    Case {
        taken: "CAP_BPF",
        script: BPFFS,
        runner: NO_BPF,
        arguments: &[],
        says: ["capabilities are missing: CAP_BPF;", "or grant what deploy/kproxy.yaml grants"],
    },
    Case {
        taken: "CAP_PERFMON",
        script: BPFFS,
        runner: NO_PERFMON,
        arguments: &[],
        says: ["capabilities are missing: CAP_PERFMON;", "or grant what deploy/kproxy.yaml grants"],
    },
    Case {
        taken: "the initial user namespace",
        script: BPFFS,
        runner: "unshare --user --map-root-user",
        arguments: &[],
        says: ["this is a user namespace", "run kproxy outside of one"],
    },
    Case {
        taken: "the BPF file system, and the right to mount one",
        script: ":",
        runner: NO_ADMIN,
        arguments: &[],
        says: ["mount a BPF file system on ", "run `mount -t bpf bpf "],
    },
    Case {
        taken: "writing to the BPF file system",
        script: "mount -t bpf -o ro bpf $W/bpf",
        runner: "",
        arguments: &[],
        says: [
            "Read-only file system",
            "check that the folder is on a BPF file system that may be written",
        ],
    },
    Case {
        taken: "the folder for pins, and making one",
        script: ":",
        runner: "",
        arguments: &[["--bpffs-root", "/proc/none"]],
        says: ["create /proc/none: ", "give another --bpffs-root"],
    },
    Case {
        taken: "a folder of cgroups",
        script: BPFFS,
        runner: "",
        arguments: &[["--cgroup-root", "/proc"]],
        says: ["/proc is not on a cgroup v2 file system;", "give --cgroup-root a folder that is"],
    },
    Case {
        taken: "/proc",
        script: "mount -t bpf bpf $W/bpf && mount -t tmpfs none /proc",
        runner: "",
        arguments: &[],
        says: ["find free source ports", "mount /proc with its folder sys, or name the ports"],
    },
    Case {
        taken: "writing to the run folder",
        script: "mount -t bpf bpf $W/bpf && mount -t tmpfs -o ro none $W/run",
        runner: "",
        arguments: &[],
        says: ["kproxy.pid", "give another --run-dir"],
    },
    Case {
        taken: "the folder of manifests",
        script: BPFFS,
        runner: "",
        arguments: &[["--manifests", "/proc/none"]],
        says: ["watch the folder /proc/none", "give an existing folder to --manifests"],
    },
    Case {
        taken: "the run folder, by another daemon",
        script: BPFFS,
        runner: "",
        arguments: &[["--run-dir", "$RUN_DIR"]],
        says: ["kproxy runs already as process ", "stop it first, or give another --run-dir"],
    },
    Case {
        taken: "the pins, by another daemon",
        script: ":",
        runner: "",
        arguments: &[["--bpffs-root", "$BPFFS"]],
        says: [
            "another kproxy is at work on ",
            "stop it first, or give this one a folder of its own",
        ],
    },
];

#[test]
fn what_keeps_kproxy_from_starting_is_one_sentence_with_the_remedy() {
    let cluster = Cluster::new(&["n1/a"]);
    let lab = &cluster.lab;
    let (kproxy, host) = (kproxy_lab::kproxy().unwrap(), lab.node("n1"));
    for (number, case) in CASES.iter().enumerate() {
        let dir = lab.dir().join(format!("start-{number}"));
        for folder in ["bpf", "run", "manifests"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let mut arguments = vec![
            ("--manifests", text(lab.manifests())),
            ("--hostname-override", "n1".to_owned()),
            ("--metrics-bind-address", String::new()),
            ("--cgroup-root", text(lab.node_cgroup("n1"))),
            ("--bpffs-root", text(dir.join("bpf"))),
            ("--run-dir", text(dir.join("run"))),
        ];
        for [name, value] in case.arguments {
            let value = match *value {
                "$RUN_DIR" => text(lab.run_dir("n1")),
                "$BPFFS" => text(lab.bpffs("n1")),
                value => value.to_owned(),
            };
            arguments.retain(|(other, _)| other != name);
            arguments.push((name, value));
        }
        let script = format!("{} && exec {} \"$@\"", case.script, case.runner);
        let mut command = host.command("timeout").unwrap();
        command.args(["60", "unshare", "--mount", "--propagation", "private"]);
        command.env("W", &dir).args(["sh", "-c", &script, "sh"]).arg(&kproxy).arg("run");
        command.args(arguments.iter().map(|(name, value)| format!("{name}={value}")));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let what = format!("without {}: {:?}\n{told}", case.taken, output.status);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert!(output.stdout.is_empty(), "{what}");
        let last = told.lines().last().unwrap_or_default();
        assert!(last.starts_with("kproxy: "), "{what}");
        assert_eq!(told.matches("kproxy: ").count(), 1, "one sentence; {what}");
        let mut rest = last;
        for words in case.says {
            assert!(rest.contains(words), "lacks {words:?}; {what}");
            if !case.taken.starts_with("writing to the BPF") {
                rest = rest.split_once(words).unwrap().1;
            }
        }
    }
    assert!(lab.pod("n1", "b").probe(Probe::tcp(vips()[0])).unwrap().all_answered());
}

/// Starts kproxy on a node after this script, in a mount namespace of its own.
fn start_after(cluster: &mut Cluster, name: &str, script: &str) {
    cluster.proxies[0].remove().unwrap();
    let wrapper = cluster.lab.dir().join(name);
    let kproxy = kproxy_lab::kproxy().unwrap();
    let inner = format!("{script}; exec \"$0\" \"$@\"");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --propagation private sh -c '{inner}' '{}' \"$@\"\n",
        kproxy.display()
    );
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = ProxySpec::kproxy(Source::Manifests).binary(&wrapper);
    cluster.proxies[0] = cluster.lab.start_proxy("n1", spec).unwrap();
}

fn assert_served(cluster: &Cluster, without: &str) {
    let (pod, client) = (cluster.lab.pod("n1", "b"), cluster.lab.client());
    let node_port = cluster.lab.node("n1").at(Family::V4, NODE_PORT);
    for (from, to) in [(&pod, vips()[0]), (&pod, vips()[1]), (&client, node_port)] {
        for probe in [Probe::tcp(to), Probe::udp(to)] {
            let outcome = from.probe(probe.count(4)).unwrap();
            assert!(outcome.all_answered(), "{without}, {to}: {outcome}\n{}", cluster.logs());
        }
    }
}

fn problems(cluster: &Cluster) -> Value {
    let status = cluster.try_kproxy("n1", &["status", "-o", "json"]).stdout;
    let mut problems = serde_json::from_slice::<Value>(&status).unwrap()["problems"].clone();
    // Labs that run beside make names that are not seen in a mount namespace of one's own.
    problems.as_array_mut().unwrap().retain(|problem| problem["object"] != "/run/netns");
    problems
}

#[test]
fn what_kproxy_can_do_without_does_not_keep_it_from_serving() {
    let mut cluster = Cluster::new(&["n1/a", "n2/a"]);
    let bpffs = cluster.lab.bpffs("n1");
    let unmounted = format!("umount {}", bpffs.display());
    start_after(&mut cluster, "no-bpffs", &unmounted);
    assert_served(&cluster, "no BPF file system");
    let log = cluster.proxies[0].log();
    assert!(log.contains("mounted a BPF file system for the pins"), "{log}");
    cluster.proxies[0].stop().unwrap();

    let read_only = "mount -o remount,bind,ro /proc; mount -o remount,bind,ro /sys";
    start_after(&mut cluster, "read-only", read_only);
    assert_served(&cluster, "/proc and /sys cannot be written");
    assert_eq!(problems(&cluster), json!([]), "/proc and /sys cannot be written");

    // Every cgroup v2 file system, and the folder that the lab names.
    let no_cgroups = "for mount in $(findmnt --noheadings --list --types cgroup2 --output TARGET); \
                      do umount --lazy $mount; done; set -- $(echo \"$@\" | sed \"s/--cgroup-root [^ ]*//\")";
    start_after(&mut cluster, "no-cgroups", no_cgroups);
    assert_served(&cluster, "no cgroup v2");
    let told = problems(&cluster).to_string();
    for words in
        ["no cgroup v2 file system is mounted", "as with --socket-lb none", "mount -t cgroup2"]
    {
        assert!(told.contains(words), "{told}\n{}", cluster.logs());
    }
}
