//! Dumps of maps in the kernel, pinned by this test and not by a daemon.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use aya::maps::{Array, HashMap, MapData, PerCpuHashMap, PerCpuValues};
use aya::{Ebpf, EbpfLoader, Pod};
use kproxy_common::abi::{ABI_VERSION, map};
use kproxy_common::config::Config;
use kproxy_common::counters::DropKey;
use kproxy_common::drop_reason::DropReason;
use kproxy_common::flow::{FlowKey, FlowValue, flow_flags, flow_state};
use kproxy_common::net::{Addr, Port, proto};
use kproxy_common::service::{
    FrontendKey, FrontendValue, NAME_LEN, Name, Service, Slot, Word, frontend_flags, service_flags,
    slot_flags,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{kproxy, one_sentence, refused};

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// Runs `test` with a bpffs that only it and its children see, and which goes with it.
pub(super) fn with_own_bpffs(test: fn(&Path)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: mounting a BPF file system needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let bpffs = folder.path().join("bpf");
        std::fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
        let _mounted = Mounted(&bpffs);
        test(&bpffs);
    });
    thread.join().unwrap();
}

/// Unmounts also when the test fails: the folder could not be removed otherwise.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = nix::mount::umount(self.0) {
            eprintln!("could not unmount {}: {error}", self.0.display());
        }
    }
}

fn hash<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str, elements: &[(K, V)]) {
    let mut map = HashMap::<&mut MapData, K, V>::try_from(ebpf.map_mut(name).unwrap()).unwrap();
    for (key, value) in elements {
        map.insert(key, value, 0).unwrap();
    }
}

fn array<V: Pod>(ebpf: &mut Ebpf, name: &str, elements: &[(u32, V)]) {
    let mut map = Array::<&mut MapData, V>::try_from(ebpf.map_mut(name).unwrap()).unwrap();
    for (index, value) in elements {
        map.set(*index, value, 0).unwrap();
    }
}

fn name(text: &str) -> Name {
    let mut name = Name { text: [0; NAME_LEN], proto: proto::TCP, family: 4, pad: [0; 2] };
    name.text[..text.len()].copy_from_slice(text.as_bytes());
    name
}

/// Loads and pins the maps, and fills them with one service port that has a backend here, one
/// elsewhere, a ClusterIP, a NodePort for backends here, and a connection.
pub(super) fn fill(bpffs: &Path) {
    let mut loader = EbpfLoader::new();
    for name in [map::SERVICES, map::SLOTS, map::FRONTENDS, map::FLOWS, map::NAMES, map::COUNTERS] {
        loader.map_max_entries(name, 64);
    }
    let mut ebpf = loader.load(kproxy::dataplane::OBJECT).unwrap();
    let maps = bpffs.join(format!("kproxy/v{ABI_VERSION}/maps"));
    std::fs::create_dir_all(&maps).unwrap();
    for name in map::PINNED {
        ebpf.map(name).unwrap().pin(maps.join(name)).unwrap();
    }

    array(&mut ebpf, map::CONFIG, &[(0, Config::default())]);
    hash(&mut ebpf, map::NAMES, &[(3u32, name("shop/cart:http"))]);
    let flags = service_flags::IN_USE;
    let entry = |first, count| {
        let word = Word { first, count, generation: 5 }.pack();
        Service { word, flags, affinity_seconds: 0 }
    };
    array(&mut ebpf, map::SERVICES, &[(6, entry(10, 2)), (7, entry(12, 1))]);
    let slot = |text, flags| Slot { addr: addr(text), port: Port::new(8080), flags, extra: 0 };
    let here = slot("10.244.1.5", slot_flags::LOCAL);
    array(&mut ebpf, map::SLOTS, &[(10, here), (11, slot("10.244.2.9", 0)), (12, here)]);
    let leads = |internal, external, flags| FrontendValue { internal, external, flags };
    let dialled = |text, port| FrontendKey::new(addr(text), Port::new(port), proto::TCP);
    let frontends = [
        (dialled("10.96.0.7", 80), leads(6, 6, frontend_flags::CLUSTER_IP)),
        (dialled("0.0.0.0", 30_080), leads(6, 7, frontend_flags::NODE_PORT)),
        (FrontendKey::address(addr("192.0.2.1")), leads(0, 0, frontend_flags::NODE_ADDRESS)),
    ];
    hash(&mut ebpf, map::FRONTENDS, &frontends);

    let there = FlowKey {
        src: addr("198.51.100.7"),
        dst: addr("192.0.2.1"),
        src_port: Port::new(40_000),
        dst_port: Port::new(30_080),
        proto: proto::TCP,
        pad: [0; 3],
    };
    let state = flow_state::ESTABLISHED;
    let value = |to, flags| FlowValue {
        to,
        flags,
        service: 7,
        last_seen: 1,
        state,
        ..FlowValue::default()
    };
    let to = FlowKey { dst: addr("10.244.1.5"), dst_port: Port::new(8080), ..there };
    let flows = [
        (there, value(to, 0)),
        (to.reversed(), value(there.reversed(), flow_flags::REVERSE | flow_flags::REPLIED)),
    ];
    hash(&mut ebpf, map::FLOWS, &flows);

    let mut drops =
        PerCpuHashMap::<&mut MapData, DropKey, u64>::try_from(ebpf.map_mut(map::DROPS).unwrap())
            .unwrap();
    let cpus = aya::util::nr_cpus().unwrap();
    let key = DropKey { service: 7, reason: DropReason::NoLocalBackend as u32 };
    drops.insert(key, PerCpuValues::try_from(vec![2u64; cpus]).unwrap(), 0).unwrap();
}

fn run(words: &[&str], bpffs: &Path) -> Output {
    kproxy().args(words).arg("--bpffs-root").arg(bpffs).output().unwrap()
}

#[track_caller]
pub(super) fn printed(words: &[&str], bpffs: &Path) -> String {
    let output = run(words, bpffs);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lc_04_tables_are_shown_without_a_daemon() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        assert_eq!(
            printed(&["dump", "frontends"], bpffs),
            "SERVICE         FRONTEND           KIND       BACKENDS\n\
             shop/cart:http  10.96.0.7:80/TCP   ClusterIP  2\n\
             shop/cart:http  0.0.0.0:30080/TCP  NodePort   2, out 1\n"
        );
        assert_eq!(
            printed(&["dump", "backends", "--address", "10.244.1.5"], bpffs),
            "SERVICE         BACKEND          SET      NODE\n\
             shop/cart:http  10.244.1.5:8080  Cluster  this\n\
             shop/cart:http  10.244.1.5:8080  Local    this\n"
        );
        assert_eq!(
            printed(&["dump", "services", "--service", "cart"], bpffs),
            "SERVICE         PROTOCOL  FRONTENDS  BACKENDS  LOCAL\n\
             shop/cart:http  TCP/IPv4          2         2      1\n"
        );
        let flows: serde_json::Value =
            serde_json::from_str(&printed(&["dump", "flows", "-o", "json"], bpffs)).unwrap();
        assert_eq!(flows[0]["client"], "198.51.100.7:40000");
        assert_eq!(flows[0]["backend"], "10.244.1.5:8080");
        assert_eq!(
            (&flows[0]["set"], &flows[0]["state"]),
            (&"Local".into(), &"established".into())
        );
        let all: serde_json::Value =
            serde_json::from_str(&printed(&["dump", "all", "-o", "json"], bpffs)).unwrap();
        assert_eq!(all["counters"][0]["service"]["name"], "cart");
        assert!(all["counters"][0]["drops"]["no-local-backend"].as_u64() >= Some(2));
        assert_eq!(all["addresses"][0]["addr"], "192.0.2.1");
        let none = run(&["dump", "flows", "-n", "nobody"], bpffs);
        assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0));
        assert_eq!(String::from_utf8_lossy(&none.stderr), "no flows that meet the conditions\n");
    });
}

#[test]
fn a_terminal_gets_colour_and_what_fits() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let terminal = |setup: &str| {
            let (program, place) = (kproxy().get_program().to_owned(), bpffs.display());
            let line = format!(
                "stty rows 24 cols 40; {setup} {} dump backends --bpffs-root {place}",
                program.display()
            );
            // script(1) of util-linux gives its command a terminal.
            let mut script = std::process::Command::new("script");
            let output = script.args(["-qec", &line, "/dev/null"]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let plain = terminal("NO_COLOR=1");
        assert!(!plain.contains('\u{1b}') && plain.contains(":http"), "{plain}");
        assert!(plain.lines().all(|line| line.trim_end().chars().count() <= 40), "{plain}");
        assert!(plain.contains('…'), "{plain}");
        assert!(terminal("TERM=xterm").contains('\u{1b}'));
    });
}

#[test]
fn status_without_a_daemon_is_not_in_order() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let run_dir: PathBuf = bpffs.with_file_name("run");
        std::fs::create_dir(&run_dir).unwrap();
        let problems = r#"[{"object": "Service a/b", "what": "port 0", "remedy": "mend it"}]"#;
        std::fs::write(run_dir.join("problems.json"), problems).unwrap();
        let words = ["status", "--run-dir", run_dir.to_str().unwrap()];
        let output = run(&words, bpffs);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for part in [
            "not in order",
            "not running: Services go on working, changes do not arrive",
            "0 of 8 programs",
            "1 service port, 2 frontends, 2 backends, 1 flow",
            "Service a/b: port 0; mend it",
            "no-local-backend",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = run(&[&words[..], &["-o", "json"]].concat(), bpffs);
        let status: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(status["in_order"], false);
        assert_eq!(status["totals"]["frontends"], 2);
    });
}

#[test]
fn maps_that_may_not_be_opened_are_named() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let binary = bpffs.with_file_name("kproxy");
        // By another process: a file that this one writes could be open in a child of another test
        // when it is run (ETXTBSY).
        let mut copy = std::process::Command::new("cp");
        assert!(copy.arg(kproxy().get_program()).arg(&binary).status().unwrap().success());
        let mut nobody = std::process::Command::new("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(binary);
        let stderr = refused(nobody.args(["dump", "all", "--bpffs-root"]).arg(bpffs));
        one_sentence(&stderr, "no permission to read ");
    });
}

#[test]
fn cleanup_removes_pins_and_run_folder() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let run_dir: PathBuf = bpffs.with_file_name("run");
        std::fs::create_dir(&run_dir).unwrap();
        for file in ["problems.json", "opt-out.json", "flow-timeouts.json"] {
            std::fs::write(run_dir.join(file), "[]").unwrap();
        }
        // A network namespace of its own: the nftables table of the machine is not touched.
        let cleanup = || {
            let mut command = std::process::Command::new("unshare");
            command.arg("--net").arg(kproxy().get_program()).arg("cleanup");
            command.arg("--run-dir").arg(&run_dir).arg("--bpffs-root").arg(bpffs);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let removed = cleanup();
        for part in [map::FRONTENDS, map::SOCKETS, "problems.json"] {
            assert!(removed.contains(part), "{part}: {removed}");
        }
        assert!(!bpffs.join("kproxy").exists() && !run_dir.exists(), "{removed}");
        assert_eq!(cleanup(), "nothing to remove\n");
    });
}
