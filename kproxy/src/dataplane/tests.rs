//! The data path on the real kernel: needs root. Each test has its own network and mount
//! namespaces (gone with its thread) and its own cgroup.

use std::{
    fs,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use kproxy_common::{
    flow::{FlowKey, FlowValue},
    net::{Addr, Port, proto},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    read::{FlowHalves, LinkTarget, OpenError, Pins},
    *,
};
use crate::plan::{
    Algorithm, Backend, BackendSet, EmptyVerdict, Family, Frontend, FrontendKind, Protocol, Scope,
    ServicePortId, Sources,
};

/// A node of the test's own.
struct Sandbox {
    bpffs: PathBuf,
    cgroup: PathBuf,
}

impl Sandbox {
    fn settings(&self) -> Settings {
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

    fn open(&self) -> Dataplane {
        Dataplane::open(&self.settings()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn pins(&self) -> Pins {
        Pins::open(&self.bpffs).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Links by program: (program, device, link id, program id).
    fn links(&self) -> Vec<(String, Option<String>, u32, u32)> {
        let device = |target| match target {
            LinkTarget::Device { name, .. } => Some(name),
            LinkTarget::Cgroup { .. } => None,
            LinkTarget::Gone { device } => panic!("the link to {device:?} is left over"),
        };
        let rows = self.pins().links().unwrap();
        let rows = rows.into_iter();
        rows.map(|row| (row.program, device(row.target), row.link_id, row.program_id)).collect()
    }

    /// Runs a shell command in the sandbox's cgroup.
    fn shell(&self, command: &str) -> Output {
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
fn sandboxed(test: impl FnOnce(&Sandbox) + Send + 'static) {
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

fn run(command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, protocol: Protocol) -> ServicePortId {
    ServicePortId {
        namespace: "default".into(),
        name: name.into(),
        port: "http".into(),
        protocol,
        family: Family::V4,
    }
}

/// A Service with this ClusterIP, a NodePort and these backends on 127.0.0.1.
fn plan(name: &str, cluster_ip: &str, node_port: u16, backends: &[u16]) -> ServicePortPlan {
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

fn device(name: &str) -> Device {
    // Not from /sys: the mount there shows the devices of another namespace.
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    Device { name: name.into(), index, ethernet: true }
}

#[test]
fn a_restart_writes_nothing_and_keeps_every_link() {
    sandboxed(|sandbox| {
        assert!(matches!(Pins::open(&sandbox.bpffs), Err(OpenError::NoBpffs { .. })));
        let plans =
            [plan("a", "10.96.0.1", 30_001, &[8001, 8002]), plan("b", "10.96.0.2", 30_002, &[])];
        let nodes = [ip("127.0.0.1"), ip("192.0.2.1")].into();
        let mut first = sandbox.open();
        assert!(first.change_config(|config| config.host_netns = 7));
        assert!(first.set_node_addresses(&nodes).problems.is_empty());
        let report = first.reconcile(plans.clone());
        assert_eq!((report.words, report.problems.as_slice()), (2, &[][..]));
        first.attach_cgroup().unwrap();
        let change = Change::Set(plan("b", "10.96.0.2", 30_002, &[8003]));
        let report = first.apply(vec![change.clone()]);
        assert_eq!((report.writes, report.words), (0, 1), "endpoints change without a call");
        assert_eq!(first.usage().slots, Fill { used: 3, capacity: 256 });
        let links = sandbox.links();
        assert_eq!(links.len(), 8);

        drop(first);
        let Change::Set(b) = change else { unreachable!() };
        let mut second = sandbox.open();
        assert!(!second.change_config(|config| config.host_netns = 7));
        assert!(second.set_node_addresses(&nodes).is_empty());
        assert!(second.reconcile([plans[0].clone(), b]).is_empty());
        second.attach_cgroup().unwrap();
        let again = sandbox.links();
        for (old, new) in links.iter().zip(&again) {
            assert_eq!((&old.0, old.2), (&new.0, new.2), "the link stays");
            assert_ne!(old.3, new.3, "the program is the new one");
        }

        let pins = sandbox.pins();
        let frontends = pins.frontends().unwrap();
        let shown: Vec<_> = frontends
            .iter()
            .map(|row| (row.service.as_ref().unwrap().name.as_str(), row.addr, row.port))
            .collect();
        assert_eq!(
            shown,
            [
                ("a", ip("10.96.0.1"), 80),
                ("a", ip("0.0.0.0"), 30_001),
                ("b", ip("10.96.0.2"), 80),
                ("b", ip("0.0.0.0"), 30_002),
            ]
        );
        assert_eq!(pins.backends().unwrap().len(), 3);
        assert_eq!(pins.node_addresses().unwrap(), nodes);
        assert_eq!(pins.config().host_netns, 7);
        let usage = pins.usage().unwrap();
        let of = |map: &str| usage.iter().find(|row| row.map == map).unwrap();
        assert_eq!((of(abi::map::FRONTENDS).used, of(abi::map::SLOTS).capacity), (8, 256));
        assert_eq!(pins.counters().unwrap().len(), 2);
        assert!(pins.drops().unwrap().is_empty() && pins.flows().unwrap().is_empty());

        drop((second, pins));
        let done = cleanup(&sandbox.bpffs);
        assert!(done.errors.is_empty(), "{done:?}");
        assert!(!sandbox.bpffs.join("kproxy").exists());
        assert!(matches!(Pins::open(&sandbox.bpffs), Err(OpenError::NoPins { .. })));
        let again = cleanup(&sandbox.bpffs);
        assert!(again.removed.is_empty() && again.errors.is_empty(), "{again:?}");
    });
}

#[test]
fn a_socket_reaches_a_backend_also_after_the_daemon_is_gone() {
    sandboxed(|sandbox| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut dataplane = sandbox.open();
        let host_netns = node::netns::cookie().unwrap();
        dataplane.change_config(|config| config.host_netns = host_netns);
        dataplane.set_node_addresses(&[ip("127.0.0.1")].into());
        dataplane.reconcile([plan("web", "10.96.0.1", 30_001, &[port])]);
        let connect = |to: &str| sandbox.shell(&format!("exec 3<>/dev/tcp/{to}")).status.success();
        assert!(!connect("10.96.0.1/80"), "nothing is attached yet");
        dataplane.attach_cgroup().unwrap();
        assert!(connect("10.96.0.1/80") && connect("127.0.0.1/30001"));
        drop(dataplane);
        assert!(connect("10.96.0.1/80"), "the pinned links go on");
        let counters = sandbox.pins().counters().unwrap();
        assert_eq!(counters[0].connections, 3);

        let mut dataplane = sandbox.open();
        dataplane.reconcile([]);
        assert!(!connect("10.96.0.1/80"));
    });
}

#[test]
fn uplink_links_follow_the_devices() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        run("ip link add v.1 type veth peer name peer1");
        let mut dataplane = sandbox.open();
        let report = dataplane.sync_devices(&[device("eth0"), device("v.1")], &[]);
        assert!(report.problems.is_empty(), "{report:?}");
        let names = |links: &[(String, Option<String>, u32, u32)]| -> Vec<_> {
            links
                .iter()
                .map(|(program, device, ..)| format!("{program} {}", device.as_ref().unwrap()))
                .collect()
        };
        let links = sandbox.links();
        assert_eq!(
            names(&links),
            ["kp_egress eth0", "kp_egress v.1", "kp_ingress eth0", "kp_ingress v.1"]
        );
        drop(dataplane);
        let mut dataplane = sandbox.open();
        let mut l3 = device("v.1");
        l3.ethernet = false;
        let report = dataplane.sync_devices(&[device("eth0"), l3], &[]);
        assert!(report.problems.is_empty(), "{report:?}");
        let again = sandbox.links();
        assert_eq!(
            names(&again),
            ["kp_egress eth0", "kp_egress_l3 v.1", "kp_ingress eth0", "kp_ingress_l3 v.1"]
        );
        let id = |links: &[(String, Option<String>, u32, u32)], n: usize| links[n].2;
        assert_eq!(
            (id(&links, 0), id(&links, 2)),
            (id(&again, 0), id(&again, 2)),
            "updated in place"
        );

        // The device goes and comes back under its name; the other one is no uplink any more.
        run("ip link delete eth0");
        run("ip link add eth0 type veth peer name peer0");
        let report = dataplane.sync_devices(&[device("eth0")], &[]);
        assert!(report.problems.is_empty(), "{report:?}");
        let again = sandbox.links();
        assert_eq!(names(&again), ["kp_egress eth0", "kp_ingress eth0"]);

        // One device that cannot be used does not stop the others.
        let missing = Device { name: "nowhere".into(), index: 999, ethernet: true };
        let report = dataplane.sync_devices(&[missing, device("eth0")], &[]);
        let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
        assert_eq!(problem.object, "device nowhere");
        assert_eq!(sandbox.links().len(), 2);
        dataplane.sync_devices(&[], &[]);
        assert!(sandbox.links().is_empty());
    });
}

#[test]
fn clsact_filters_are_replaced_and_those_of_others_stay() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        run("tc qdisc add dev eth0 clsact");
        // Somebody else's filter: a program of another name.
        drop(sandbox.open());
        let other = PinDirs::new(&sandbox.bpffs).programs.join(program::EGRESS_L3);
        let other = format!("bpf direct-action object-pinned {}", other.display());
        run(&format!("tc filter add dev eth0 ingress prio 7 {other}"));
        let filters = |side: &str| run(&format!("tc filter show dev eth0 {side}"));
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut dataplane = sandbox.open();
            dataplane.tc = TcMode::Clsact;
            let report = dataplane.sync_devices(&[device("eth0")], &[]);
            assert!(report.problems.is_empty(), "{report:?}");
            drop(dataplane);
            for (side, program) in [("ingress", "kp_ingress"), ("egress", "kp_egress")] {
                let text = filters(side);
                let ours = format!(" {program} direct-action ");
                assert_eq!(text.matches(&ours).count(), 1, "{text}");
            }
            assert!(filters("ingress").contains("pref 7 "));
            let text = filters("ingress");
            let ours = text.lines().find(|line| line.contains(" kp_ingress ")).unwrap();
            ids.extend(ours.split(" id ").nth(1).map(str::to_owned));
        }
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1], "the restarted daemon's program took over");
        let done = cleanup(&sandbox.bpffs);
        assert!(done.errors.is_empty(), "{done:?}");
        assert!(done.removed.contains(&"clsact filters of device eth0".to_owned()), "{done:?}");
        assert!(
            filters("ingress").contains("pref 7 ") && !filters("ingress").contains("kp_ingress")
        );
        assert!(filters("egress").is_empty());

        let mut dataplane = sandbox.open();
        dataplane.tc = TcMode::Clsact;
        dataplane.sync_devices(&[device("eth0")], &[]);
        dataplane.sync_devices(&[], &[]);
        assert!(!filters("ingress").contains("kp_ingress") && filters("egress").is_empty());
    });
}

#[test]
fn pinned_maps_keep_their_size_and_must_have_this_layout() {
    sandboxed(|sandbox| {
        let mut dataplane = sandbox.open();
        assert!(dataplane.reconcile([]).problems.is_empty());
        drop(dataplane);
        let larger = Settings { max_slots: 512, ..sandbox.settings() };
        let mut dataplane = Dataplane::open(&larger).unwrap();
        let report = dataplane.reconcile([]);
        let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
        assert_eq!(problem.object, "map KP_SLOTS");
        assert!(problem.what.contains("room for 256 entries"), "{problem}");
        assert_eq!(dataplane.usage().slots.capacity, 256);
        drop(dataplane);

        // The names' map in the place of the frontends'.
        let dirs = PinDirs::new(&sandbox.bpffs);
        let (names, frontends) = (dirs.map(abi::map::NAMES), dirs.map(abi::map::FRONTENDS));
        fs::rename(names, frontends).unwrap();
        let error = Dataplane::open(&sandbox.settings()).err().unwrap().to_string();
        assert!(error.contains("KP_FRONTENDS is not the one of this kproxy"), "{error}");
        assert!(error.contains("kproxy cleanup"), "{error}");
    });
}

#[test]
fn only_one_daemon_writes() {
    sandboxed(|sandbox| {
        let first = sandbox.open();
        let error = Dataplane::open(&sandbox.settings()).err().unwrap().to_string();
        assert!(error.starts_with("another kproxy is at work on"), "{error}");
        drop(first);
        sandbox.open();
    });
}

#[test]
fn pins_of_another_version_are_told_apart() {
    sandboxed(|sandbox| {
        node::bpffs::ensure(&sandbox.bpffs).unwrap();
        fs::create_dir_all(sandbox.bpffs.join("kproxy/v99/maps")).unwrap();
        let error = Pins::open(&sandbox.bpffs).err().unwrap();
        assert!(
            matches!(&error, OpenError::OtherVersion { found, wanted: abi::ABI_VERSION } if found == "99")
        );
        let done = cleanup(&sandbox.bpffs);
        assert!(done.errors.is_empty() && !Path::exists(&sandbox.bpffs.join("kproxy")), "{done:?}");
    });
}

#[test]
fn flows_are_read_and_swept() {
    sandboxed(|sandbox| {
        let mut dataplane = sandbox.open();
        let mut udp = plan("dns", "10.96.0.9", 30_053, &[53]);
        udp.id = service("dns", Protocol::Udp);
        dataplane.reconcile([udp.clone()]);
        let addr = |text: &str| Addr::from(ip(text));
        let seconds = now().as_secs() as u32;
        let mut open = |client: u16| {
            let key = FlowKey {
                src: addr("203.0.113.9"),
                dst: addr("192.0.2.1"),
                src_port: Port::new(client),
                dst_port: Port::new(30_053),
                proto: proto::UDP,
                pad: [0; 3],
            };
            let forward = FlowValue {
                to: FlowKey { dst: addr("127.0.0.1"), dst_port: Port::new(53), ..key },
                last_seen: seconds,
                ..FlowValue::default()
            };
            let reverse = FlowValue {
                to: key.reversed(),
                flags: kproxy_common::flow::flow_flags::REVERSE,
                last_seen: seconds,
                ..FlowValue::default()
            };
            dataplane.flows.insert(key, forward, 0).unwrap();
            dataplane.flows.insert(forward.to.reversed(), reverse, 0).unwrap();
        };
        (1..=20).for_each(&mut open);
        let rows = sandbox.pins().flows().unwrap();
        assert_eq!(rows.len(), 20);
        assert!(rows.iter().all(|row| row.service.as_ref().is_some_and(|id| id.name == "dns")));
        let report = dataplane.sweep().unwrap();
        assert_eq!((report.entries, report.removed), (40, 0));
        assert_eq!(dataplane.usage().flows, Fill { used: 40, capacity: 128 });
        // CT-07: also when no backend is left.
        udp.cluster.backends.clear();
        dataplane.apply(vec![Change::Set(udp)]);
        // The ways back stay a while, for answers under way.
        assert_eq!(dataplane.sweep().unwrap().removed, 20);
        let rows = sandbox.pins().flows().unwrap();
        assert!(rows.len() == 20 && rows.iter().all(|row| row.halves == FlowHalves::ReverseOnly));
    });
}

#[test]
fn a_full_kernel_map_refuses_by_name_and_serves_later() {
    sandboxed(|sandbox| {
        let settings = Settings { max_frontends: 4, ..sandbox.settings() };
        let mut dataplane = Dataplane::open(&settings).unwrap();
        let plans = ["a", "b", "c"].map(|name| {
            let number = name.as_bytes()[0] - b'a' + 1;
            plan(name, &format!("10.96.0.{number}"), 30_000 + u16::from(number), &[80])
        });
        let report = dataplane.reconcile(plans.clone());
        assert!(!report.problems.is_empty());
        assert!(report.problems.iter().any(|problem| problem.object == "Service default/c"));
        assert_eq!(dataplane.problems(), report.problems, "remembered while they last");
        dataplane
            .apply(vec![Change::Remove(plans[0].id.clone()), Change::Remove(plans[1].id.clone())]);
        assert!(dataplane.retry().problems.is_empty());
        assert!(dataplane.problems().is_empty());
        assert_eq!(sandbox.pins().frontends().unwrap().len(), 2);
    });
}

#[test]
fn the_data_path_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Dataplane>();
}

#[test]
fn verdicts_on_network_namespaces_are_exactly_those_that_were_set_last() {
    use crate::plan::{SocketVerdict, SocketVerdicts};
    sandboxed(|sandbox| {
        let mut dataplane = sandbox.open();
        let (served, opted_out) = (SocketVerdict::Served, SocketVerdict::OptedOut);
        for wanted in [
            SocketVerdicts::from([
                (1, served),
                (2, opted_out),
                (u64::MAX, SocketVerdict::Undecided),
            ]),
            // One changes, one goes, one comes.
            SocketVerdicts::from([(1, opted_out), (2, opted_out), (3, served)]),
            SocketVerdicts::new(),
            SocketVerdicts::from([(7, served)]),
        ] {
            assert_eq!(dataplane.set_socket_verdicts(&wanted).problems, []);
            assert_eq!(dataplane.socket_verdicts(), wanted);
            assert_eq!(sandbox.pins().socket_verdicts().unwrap(), wanted);
        }
        drop(dataplane);
        let mut dataplane = sandbox.open();
        assert_eq!(dataplane.socket_verdicts(), SocketVerdicts::from([(7, served)]));
        // More than there is room for.
        let many = (0..20_000).map(|cookie| (cookie, served)).collect();
        let problems = dataplane.set_socket_verdicts(&many).problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].object.contains("KP_NETNS"), "{problems:?}");
    });
}
