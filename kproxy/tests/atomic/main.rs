//! One word a change: readers in the kernel against ten thousand changes, and no `bpf()` call.
//!
//! The readers are the real ingress program, run on single packets with BPF_PROG_TEST_RUN. Needs
//! root; pins in a BPF file system of the test's own.

mod seccomp;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use aya::{
    TestRun as _,
    programs::{SchedClassifier, TestRunOptions},
};
use etherparse::PacketBuilder;
use kproxy::{
    dataplane::{Dataplane, Settings},
    plan::{
        Algorithm, Backend, BackendSet, Change, EmptyVerdict, Family, Frontend, FrontendKind,
        Protocol, Scope, ServicePortId, ServicePortPlan, Sources,
    },
};
use kproxy_common::abi::ABI_VERSION;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const CHANGES: u32 = 10_000;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// A BPF file system in a folder of its own; unmounted, and with it every pin gone, on drop.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mount a BPF file system (needs root)");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn open(bpffs: &Bpffs) -> Dataplane {
    Dataplane::open(&Settings {
        max_services: 64,
        max_slots: 100_000,
        max_frontends: 64,
        max_flows: 1_000_000,
        ..Settings::new(bpffs.path())
    })
    .unwrap()
}

/// The address that stands for backend `i` of change `number`: each backend belongs to one set.
fn address(number: u32, i: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0b00_0000 | number << 8 | i))
}

/// The plan after change `number`: one to seven backends.
fn plan(number: u32) -> ServicePortPlan {
    let backends = (0..=number % 7)
        .map(|i| Backend { addr: address(number, i), port: 8080, local: true })
        .collect();
    ServicePortPlan {
        id: ServicePortId {
            namespace: "default".into(),
            name: "web".into(),
            port: String::new(),
            protocol: Protocol::Udp,
            family: Family::V4,
        },
        frontends: vec![Frontend {
            kind: FrontendKind::ClusterIp,
            addr: VIP.into(),
            port: 80,
            internal: Scope::Cluster,
            external: Scope::Cluster,
            sources: Sources::All,
        }],
        cluster: BackendSet { backends, when_empty: EmptyVerdict::Reject },
        local: None,
        serving: Vec::new(),
        created: None,
        affinity_seconds: None,
        algorithm: Algorithm::RoundRobin,
        source_ranges: Vec::new(),
    }
}

/// Which change the backend belongs to that a new connection gets.
fn lookup(program: &SchedClassifier, client: Ipv4Addr, port: u16) -> u32 {
    let mut packet = Vec::new();
    // To the address of the loopback device, which is where the kernel says the packet came in.
    PacketBuilder::ethernet2([2; 6], [0; 6])
        .ipv4(client.octets(), VIP.octets(), 64)
        .udp(port, 80)
        .write(&mut packet, b"x")
        .unwrap();
    let mut out = vec![0; packet.len() + 64];
    program
        .test_run(TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })
        .unwrap();
    let to = u32::from_be_bytes(out[30..34].try_into().unwrap());
    assert_eq!(to >> 24, 0x0b, "not translated: {:?}", Ipv4Addr::from(to));
    let (number, i) = (to >> 8 & 0xffff, to & 0xff);
    assert!(i <= number % 7, "backend {i} is not in set {number}");
    number
}

fn program(bpffs: &Bpffs) -> SchedClassifier {
    let path: PathBuf = bpffs.path().join(format!("kproxy/v{ABI_VERSION}/programs/kp_ingress"));
    SchedClassifier::from_pin(path).unwrap()
}

#[test]
fn no_lookup_sees_a_backend_outside_the_old_or_the_new_set() {
    let bpffs = Bpffs::new();
    let mut dataplane = open(&bpffs);
    dataplane.reconcile([plan(0)]);
    let done = AtomicU32::new(0);
    let lookups = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2u8 {
            let (bpffs, done, lookups) = (&bpffs, &done, &lookups);
            scope.spawn(move || {
                let program = program(bpffs);
                let mut turn = 0u32;
                loop {
                    let before = done.load(Ordering::Acquire);
                    let client = Ipv4Addr::new(203, 0, 113 + reader, (turn >> 16) as u8);
                    let seen = lookup(&program, client, turn as u16);
                    // The change under way when the lookup ended may be in force already.
                    let after = done.load(Ordering::Acquire) + 1;
                    assert!((before..=after).contains(&seen), "{before} <= {seen} <= {after}");
                    turn += 1;
                    lookups.fetch_add(1, Ordering::Relaxed);
                    if before == CHANGES {
                        return;
                    }
                }
            });
        }
        for number in 1..=CHANGES {
            let report = dataplane.apply(vec![Change::Set(plan(number))]);
            assert_eq!((report.writes, report.words), (0, 1), "{report:?}");
            done.store(number, Ordering::Release);
            // Let the readers in between, also on a machine with one CPU.
            if number % 64 == 0 {
                std::thread::yield_now();
            }
        }
    });
    assert!(lookups.into_inner() > 100, "the readers have hardly read");
}

#[test]
fn a_change_of_endpoints_makes_no_bpf_call() {
    let bpffs = Bpffs::new();
    let mut dataplane = open(&bpffs);
    dataplane.reconcile([plan(0)]);
    std::thread::scope(|scope| {
        let dataplane = &mut dataplane;
        scope.spawn(move || {
            seccomp::forbid_bpf();
            assert!(fs::metadata("/").is_ok(), "other calls go on");
            for number in 1..200 {
                let report = dataplane.apply(vec![Change::Set(plan(number))]);
                assert_eq!((report.writes, report.words), (0, 1), "{report:?}");
            }
            // Nor with another algorithm, whose tables come and go.
            for number in 200..220 {
                let algorithm = Algorithm::ALL[number as usize % 4];
                let change = ServicePortPlan { algorithm, ..plan(number) };
                let report = dataplane.apply(vec![Change::Set(change)]);
                assert_eq!((report.writes, report.words), (0, 1), "{report:?}");
            }
        });
    });
    assert_eq!(lookup(&program(&bpffs), Ipv4Addr::new(203, 0, 113, 9), 1), 219);
    // Planning the same again changes nothing at all.
    let algorithm = Algorithm::ALL[219 % 4];
    let report = dataplane.reconcile([ServicePortPlan { algorithm, ..plan(219) }]);
    assert!(report.is_empty(), "{report:?}");
}

#[test]
fn lc_02_a_restart_writes_only_the_difference() {
    let bpffs = Bpffs::new();
    let report = open(&bpffs).reconcile([plan(3)]);
    assert!(report.writes > 0);
    let mut again = open(&bpffs);
    assert!(again.reconcile([plan(3)]).is_empty());
    let report = again.reconcile([plan(4)]);
    assert_eq!((report.writes, report.words, report.problems), (0, 1, vec![]));
    let report = again.reconcile([]);
    assert!(report.writes > 0 && report.problems.is_empty(), "{report:?}");
}
