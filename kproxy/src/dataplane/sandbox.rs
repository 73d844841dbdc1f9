//! A data path of a test's own on the real kernel: needs root. Each test has its own network and
//! mount namespaces (gone with its thread) and its own cgroup.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    Dataplane, Settings,
    read::{LinkTarget, Pins},
};
use crate::{
    errors::with_causes,
    node::{self, Device},
    plan::{
        Algorithm, Backend, BackendSet, EmptyVerdict, Family, Frontend, FrontendKind, Protocol,
        Scope, ServicePortId, ServicePortPlan, Sources,
    },
};

/// A node of the test's own.
pub(super) struct Sandbox {
    pub(super) bpffs: PathBuf,
    cgroup: PathBuf,
}

impl Sandbox {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            cgroup_root: Some(self.cgroup.clone()),
            max_services: 64,
            max_slots: 256,
            max_frontends: 64,
            max_flows: 128,
            max_affinity: 64,
            ..Settings::new(&self.bpffs)
        }
    }

    pub(super) fn open(&self) -> Dataplane {
        Dataplane::open(&self.settings()).unwrap_or_else(|error| panic!("{}", with_causes(&error)))
    }

    pub(super) fn pins(&self) -> Pins {
        Pins::open(&self.bpffs).unwrap_or_else(|error| panic!("{}", with_causes(&error)))
    }

    /// Links by program: (program, device, link id, program id).
    pub(super) fn links(&self) -> Vec<(String, Option<String>, u32, u32)> {
        let device = |target| match target {
            LinkTarget::Device { name, .. } => Some(name),
            LinkTarget::Cgroup { .. } => None,
            LinkTarget::Gone => panic!("a link is left over"),
        };
        let rows = self.pins().links().unwrap();
        let rows = rows.into_iter();
        rows.map(|row| (row.program, device(row.target), row.link_id, row.program_id)).collect()
    }

    /// Runs a shell command in the sandbox's cgroup.
    pub(super) fn shell(&self, command: &str) -> Output {
        let procs = self.cgroup.join("cgroup.procs");
        let script = format!("echo $$ > {} && {command}", procs.display());
        Command::new("bash").args(["-c", &script]).output().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        fs::remove_dir(&self.cgroup).unwrap_or_else(|error| {
            eprintln!("{} is left over: {error}", self.cgroup.display());
        });
    }
}

/// Runs a test in a sandbox.
pub(super) fn sandboxed(test: impl FnOnce(&Sandbox) + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("kproxy-test-{}-{number}", std::process::id());
    let thread = std::thread::spawn(move || {
        let cgroup = node::cgroup::root(None).expect("a cgroup v2 tree").join(name);
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces need root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        fs::create_dir(&cgroup).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox { bpffs: folder.path().join("bpf"), cgroup };
        run("ip link set lo up");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&sandbox)));
        drop(sandbox);
        nix::mount::umount(&folder.path().join("bpf")).ok();
        outcome
    });
    if let Err(panic) = thread.join().and_then(|outcome| outcome) {
        std::panic::resume_unwind(panic);
    }
}

pub(super) fn run(command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn service(name: &str, protocol: Protocol) -> ServicePortId {
    ServicePortId {
        namespace: "default".into(),
        name: name.into(),
        port: "http".into(),
        protocol,
        family: Family::V4,
    }
}

/// A Service with this ClusterIP, a NodePort and these backends on 127.0.0.1.
pub(super) fn plan(
    name: &str,
    cluster_ip: &str,
    node_port: u16,
    backends: &[u16],
) -> ServicePortPlan {
    let frontend = |kind, addr, port| Frontend {
        kind,
        addr,
        port,
        internal: Scope::Cluster,
        external: Scope::Cluster,
        sources: Sources::All,
    };
    ServicePortPlan {
        id: service(name, Protocol::Tcp),
        frontends: vec![
            frontend(FrontendKind::ClusterIp, ip(cluster_ip), 80),
            frontend(FrontendKind::NodePort, ip("0.0.0.0"), node_port),
        ],
        cluster: BackendSet {
            backends: backends
                .iter()
                .map(|port| Backend { addr: ip("127.0.0.1"), port: *port, local: true })
                .collect(),
            when_empty: EmptyVerdict::Reject,
        },
        local: None,
        serving: Vec::new(),
        created: None,
        affinity_seconds: None,
        algorithm: Algorithm::RoundRobin,
        source_ranges: Vec::new(),
    }
}

pub(super) fn device(name: &str) -> Device {
    // Not from /sys: the mount there shows the devices of another namespace.
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    Device { name: name.into(), index, ethernet: true }
}
