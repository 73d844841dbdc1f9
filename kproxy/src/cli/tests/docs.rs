//! The samples of `docs/cli.md`.
//!
//! A sample is a code block after a line `<!-- sample: NAME -->`.

use std::path::Path;

use kproxy_common::abi;
use kproxy_common::flow::unassured;

use super::{EACH, TERMINAL, dump, explain, sample, typed, verify};
use crate::cli::args::{DumpTable, FilterArgs, Format, TraceFormat};
use crate::cli::check::finding::{Finding, Report};
use crate::cli::render::json;
use crate::cli::sockets::Socket;
use crate::cli::status::attached::{Cgroup, Device};
use crate::cli::status::facts::{Daemon, Drops, Fill, Status, Totals};
use crate::cli::status::opt_out::OptOut;
use crate::cli::status::print::print;
use crate::cli::status::source_nat::SourceNat;
use crate::cli::status::timeouts::Timeout;
use crate::cli::version::Version;
use crate::daemon::run_dir::OptedOut;
use crate::dataplane::read::{SocketRow, ToldBy, UsageRow};
use crate::dataplane::{PortPool, PortUse, Settings};
use crate::model::{Problem, Protocol};
use crate::node::processes::Owner;

/// A node with a dead daemon, a device that lost a program, and a bad object.
fn status() -> Status {
    let tables = sample::tables();
    let limits = Settings::new("/sys/fs/bpf").map_limits();
    let map = |map, used, capacity: u32| {
        let limit = limits.get(map).map(|limit| u64::from(*limit));
        Fill::new(UsageRow { map, used, capacity: u64::from(capacity) }, limit)
    };
    let mut status = Status {
        in_order: true,
        reasons: Vec::new(),
        version: Version { version: "0.1.0", abi_version: abi::ABI_VERSION },
        pins: format!("/sys/fs/bpf/kproxy/v{}", abi::ABI_VERSION),
        other_versions: Vec::new(),
        daemon: Daemon { running: false, pid: None },
        cgroup: Cgroup {
            id: Some(1),
            path: Some("/sys/fs/cgroup".into()),
            attached: abi::program::CGROUP.map(str::to_owned).to_vec(),
            missing: Vec::new(),
            unused: false,
        },
        devices: vec![
            Device {
                name: "eth0".to_owned(),
                index: Some(2),
                attached: vec![abi::program::EGRESS.into(), abi::program::INGRESS.into()],
                missing: Vec::new(),
            },
            Device {
                name: "wg0".to_owned(),
                index: Some(5),
                attached: vec![abi::program::INGRESS_L3.into()],
                missing: vec![abi::program::EGRESS_L3.into()],
            },
        ],
        opt_out: Some(OptOut {
            as_told: OptedOut {
                pod_cidrs: vec!["10.244.1.128/25".to_owned()],
                namespaces: ["mesh".to_owned()].into(),
            },
            opted_out: 3,
            served: 12,
            undecided: 1,
        }),
        source_nat: SourceNat {
            ports: Some("1024-29999".to_owned()),
            pool: Some(PortPool {
                size: 28_976,
                fullest: Some(PortUse {
                    backend: "10.244.2.9:8080".parse().unwrap(),
                    protocol: Some("TCP"),
                    used: 312,
                    assured: 40,
                }),
            }),
            netfilter: true,
            nftables_table: Some(true),
        },
        timeouts: vec![
            Timeout {
                state: "established",
                seconds: 7_200,
                from: Some("net.netfilter.nf_conntrack_tcp_timeout_established".to_owned()),
            },
            Timeout { state: "stream", seconds: 300, from: Some("--flow-timeouts".to_owned()) },
        ],
        node_addresses: tables.addresses.iter().filter(|a| a.node).map(|a| a.addr).collect(),
        totals: Totals {
            service_ports: tables.services.len(),
            frontends: tables.frontends.len(),
            backends: tables.services.iter().map(|s| u64::from(s.cluster.backends)).sum(),
            flows: tables.flows.len(),
        },
        maps: vec![
            map(abi::map::FRONTENDS, 22, abi::FIRST_FRONTENDS),
            map(abi::map::SERVICES, 15, abi::FIRST_SERVICES),
            map(abi::map::SLOTS, 11, abi::FIRST_SLOTS),
            map(abi::map::FLOWS, 493_113, abi::DEFAULT_FLOWS),
            map(abi::map::ASSURED, 221_184, unassured::most_assured(abi::DEFAULT_FLOWS)),
        ],
        drops: Drops::by_reason(&tables.drops),
        problems: vec![Problem::new(
            "Service default/broken",
            "port 0 is no port, so the Service is left out",
            "give its port a number from 1 to 65535",
        )],
    };
    status.judge();
    status
}

fn printed(status: &Status) -> String {
    let mut out = Vec::new();
    print(&mut out, &TERMINAL, status).unwrap();
    String::from_utf8(out).unwrap()
}

/// A node whose kube-proxy has been stopped, with a firewall and somebody else's program.
fn check() -> Report {
    Report::of(vec![
        Finding::ok("kernel", "6.12.48+deb13-amd64"),
        Finding::ok("BTF", "/sys/kernel/btf/vmlinux"),
        Finding::ok("programs", "the kernel takes all 20 of them"),
        Finding::failure(
            "forwarding",
            "net.ipv4.ip_forward: it is off",
            "set it: `sysctl -w net.ipv4.ip_forward=1`",
        ),
        Finding::warning(
            "kube-proxy",
            "does not run here and has left rules, which go on translating: nftables table ip kube-proxy",
            "run `kproxy cleanup --kube-proxy` once kproxy serves",
        ),
        Finding::warning(
            "hooks",
            "eth0 ingress: shaper, kp_ingress, in this order",
            "see that it leaves packets to Services alone",
        ),
    ])
}

/// A pod's web client and the node's resolver.
fn sockets() -> Vec<Socket> {
    let tables = sample::tables();
    let id = |name: &str| {
        let row = tables
            .services
            .iter()
            .find(|row| row.service.as_ref().is_some_and(|service| service.name == name));
        row.map(|row| (row.id, row.service.clone())).unwrap()
    };
    let socket = |owner: (i32, &str), pod: Option<&str>, name, ends: [&str; 3], told_by| {
        let (id, service) = id(name);
        let [local, frontend, backend] = ends.map(|end| end.parse().unwrap());
        let is_tcp = told_by == ToldBy::Connect;
        let host = pod.map(str::to_owned);
        let row = SocketRow {
            protocol: Some(if is_tcp { Protocol::Tcp } else { Protocol::Udp }),
            state: if is_tcp { "established" } else { "unconnected" },
            told_by,
            local,
            frontend,
            backend,
            id,
            service,
            namespace: 4_026_532_281,
            cgroup: 9_021,
            user: 101,
            inode: 48_211,
        };
        let processes = vec![Owner { pid: owner.0, name: owner.1.to_owned(), host: host.clone() }];
        Socket {
            processes,
            pod: host,
            row,
            cgroup_path: Some("/sys/fs/cgroup/kubepods.slice/a".into()),
        }
    };
    vec![
        socket(
            (2_101, "envoy"),
            Some("shop-7d9f8b6c5-x2x7l"),
            "web",
            ["10.244.1.7:40112", "10.96.34.7:80", "10.244.2.9:8080"],
            ToldBy::Connect,
        ),
        socket(
            (811, "systemd-resolve"),
            None,
            "kube-dns",
            ["0.0.0.0:51402", "10.96.0.10:53", "10.244.1.4:53"],
            ToldBy::Send,
        ),
    ]
}

/// Every sample that the page may show.
fn samples() -> Vec<(String, String)> {
    let (tables, all) = (sample::tables(), FilterArgs::default());
    let mut samples = Vec::new();
    for table in EACH {
        let text = dump(&tables, table, Format::Table, &TERMINAL, &all);
        samples.push((format!("dump {}", table.name()), text));
        let conditions = match table {
            DumpTable::Frontends => "--address 203.0.113.20",
            DumpTable::Services => "-n shop",
            DumpTable::Backends => "--address 192.0.2.10",
            DumpTable::Flows => "--service web --port 40112",
            DumpTable::Affinity => "--address 203.0.113.9",
            DumpTable::Counters => "-n legacy",
            DumpTable::Addresses | DumpTable::All => "--address 192.0.2.11",
        };
        let row = dump(&tables, table, Format::Json, &TERMINAL, &typed(conditions));
        samples.push((format!("dump {} {conditions} -o json", table.name()), row));
    }
    samples.extend(explain::samples());
    let mut text = Vec::new();
    crate::cli::check::print::print(&mut text, &TERMINAL, &check()).unwrap();
    samples.push(("check".to_owned(), String::from_utf8(text).unwrap()));
    for (name, format) in [("sockets", Format::Table), ("sockets -o json", Format::Json)] {
        let rows = sockets();
        let shown = if format == Format::Json { &rows[..1] } else { &rows };
        let mut text = Vec::new();
        crate::cli::sockets::print(&mut text, &TERMINAL, format, shown).unwrap();
        samples.push((name.to_owned(), String::from_utf8(text).unwrap()));
    }
    samples.extend(verify::samples());
    samples.push(("trace".to_owned(), super::trace::printed(&super::PLAIN, TraceFormat::Table)));
    samples.push((
        "trace -o json".to_owned(),
        super::trace::printed(&super::PLAIN, TraceFormat::Json),
    ));
    samples.push(("top --once".to_owned(), super::top::once()));
    let status = status();
    samples.push(("status".to_owned(), printed(&status)));
    let mut text = Vec::new();
    json::write(&mut text, &status).unwrap();
    samples.push(("status -o json".to_owned(), String::from_utf8(text).unwrap()));
    samples
}

#[test]
fn the_samples_of_the_page_are_what_is_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut wanted = page.clone();
    for (name, text) in samples() {
        let marker = format!("<!-- sample: {name} -->\n");
        let start = wanted.find(&marker).unwrap_or_else(|| panic!("no sample `{name}`"));
        let block = start + marker.len();
        let body = block + wanted[block..].find('\n').unwrap() + 1;
        let end = body + wanted[body..].find("```\n").unwrap();
        wanted.replace_range(body..end, &text);
    }
    if std::env::var_os("KPROXY_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(page == wanted, "docs/cli.md is stale: run this test with KPROXY_UPDATE_DOCS=1");
}

#[test]
fn status_in_order_says_so() {
    let mut status = status();
    status.daemon = Daemon { running: true, pid: Some(4711) };
    status.devices.truncate(1);
    status.opt_out = None;
    status.maps.truncate(4);
    status.timeouts.clear();
    status.drops.clear();
    status.problems.clear();
    status.judge();
    assert!(status.in_order, "{:?}", status.reasons);
    insta::assert_snapshot!("status_in_order", printed(&status));
}

#[test]
fn status_names_every_reason() {
    let mut status = status();
    status.other_versions = vec![2];
    status.judge();
    status.cgroup.missing = vec![status.cgroup.attached.remove(0)];
    status.source_nat.nftables_table = Some(false);
    let pool = status.source_nat.pool.as_mut().unwrap();
    pool.fullest.as_mut().unwrap().assured = 26_079;
    status.judge();
    for part in [
        "`inet kproxy` is missing",
        "daemon is not running",
        "kp_recvmsg4",
        "wg0: kp_egress_l3",
        "--max-flows",
        "--snat-ports",
        "layout version 2",
    ] {
        assert!(status.reasons.iter().any(|why| why.contains(part)), "{part}: {status:?}");
    }
    assert!(!status.in_order);
    // The filter is a hint, not a table: full of set bits it is slower, never wrong.
    let full = |map| Fill::new(UsageRow { map, used: 99, capacity: 100 }, Some(1000));
    status.maps = vec![full(abi::map::FILTER), full(abi::map::SLOTS)];
    status.judge();
    // And a map that may grow is not full yet.
    assert!(!status.reasons.iter().any(|why| why.contains("KP_")), "{:?}", status.reasons);
}
