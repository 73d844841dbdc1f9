//! Links, filters and pinned maps on the real kernel.

use std::{collections::BTreeSet, fs, net::TcpListener, time::Duration};

use aya::maps::MapInfo;
use kproxy_common::{
    abi::{map, program},
    config::{Config, config_flags},
    flow::{FlowKey, FlowValue, flow_flags},
    net::{Addr, Port},
};
use nix::mount::MntFlags;

use super::{
    cleanup::cleanup,
    load::{open_map, open_memory},
    pins::PinDirs,
};
use crate::{
    dataplane::{
        Dataplane, Settings,
        kernel::{clock, memory::Memory},
        maps::Flows,
        sandbox::{device, ip, plan, run, sandboxed},
    },
    errors::with_causes,
    node::{self, Device},
};

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

        // One that has gone meanwhile is no problem and does not stop the others.
        let missing = Device { name: "nowhere".into(), index: 999, ethernet: true };
        let report = dataplane.sync_devices(&[missing, device("eth0")], &[]);
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!(sandbox.links().len(), 2);
        dataplane.sync_devices(&[], &[]);
        assert!(sandbox.links().is_empty());
    });
}

#[test]
fn links_belong_to_the_device_whatever_it_is_called() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        run("ip link add eth1 type veth peer name peer1");
        let mut dataplane = sandbox.open();
        dataplane.sync_devices(&[device("eth0"), device("eth1")], &[]);
        let ids = |links: Vec<(String, Option<String>, u32, u32)>| {
            links.into_iter().map(|link| link.2).collect::<BTreeSet<_>>()
        };
        let before = ids(sandbox.links());
        let served = dataplane.served().uplinks;
        // Both change names; the first look still knows the old ones.
        let old = [device("eth0"), device("eth1")];
        run("ip link set eth0 name was0");
        run("ip link set eth1 name eth0");
        run("ip link set was0 name eth1");
        for devices in [old, [device("eth0"), device("eth1")]] {
            let report = dataplane.sync_devices(&devices, &[]);
            assert!(report.problems.is_empty(), "{report:?}");
            assert_eq!(ids(sandbox.links()), before);
        }
        assert_eq!(served, [device("eth0").index, device("eth1").index].into());
        assert_eq!(dataplane.served().uplinks, served);
        // Pins that an earlier version has named after the device give way to links of today.
        let links = PinDirs::new(&sandbox.bpffs).links;
        for entry in fs::read_dir(&links).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let (program, index) = name.split_once('@').unwrap();
            let old = format!("{program}@dev{index}");
            fs::rename(&path, links.join(old)).unwrap();
        }
        drop(dataplane);
        let mut dataplane = sandbox.open();
        let report = dataplane.sync_devices(&[device("eth0"), device("eth1")], &[]);
        assert!(report.problems.is_empty(), "{report:?}");
        let after = ids(sandbox.links());
        assert!(after.len() == 4 && after.is_disjoint(&before), "{after:?}");
    });
}

#[test]
fn what_somebody_takes_off_is_attached_again() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        let mut dataplane = sandbox.open();
        dataplane.attach_cgroup().unwrap();
        dataplane.sync_devices(&[device("eth0")], &[]);
        let before = sandbox.links();
        for entry in fs::read_dir(PinDirs::new(&sandbox.bpffs).links).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert!(sandbox.links().is_empty());
        // The kernel takes a link off some time after its last owner has gone.
        let mut attached = || {
            let mut problems = dataplane.sync_devices(&[device("eth0")], &[]).problems;
            problems.extend(dataplane.repair_cgroup().problems);
            problems.is_empty()
        };
        let tries = (0..100).take_while(|_| {
            std::thread::sleep(Duration::from_millis(50));
            !attached()
        });
        assert!(tries.count() < 100, "never attached again");
        assert_eq!(sandbox.links().len(), before.len());
        drop(dataplane);

        let mut dataplane = sandbox.open();
        dataplane.attachments.use_clsact();
        for _ in 0..2 {
            dataplane.sync_devices(&[device("eth0")], &[]);
            assert!(run("tc filter show dev eth0 ingress").contains("kp_ingress"));
            run("tc filter del dev eth0 ingress");
        }
        run("tc qdisc del dev eth0 clsact");
        run("ip link set eth0 name wan0");
        let report = dataplane.sync_devices(&[device("wan0")], &[]);
        assert!(report.problems.is_empty(), "{report:?}");
        assert!(run("tc filter show dev wan0 egress").contains("kp_egress"));
    });
}

#[test]
fn clsact_filters_are_replaced_and_those_of_others_stay() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        run("tc qdisc add dev eth0 clsact");
        // Somebody else's filter: a program of another name.
        drop(sandbox.open());
        let other = PinDirs::new(&sandbox.bpffs).program(program::EGRESS_L3);
        let other = format!("bpf direct-action object-pinned {}", other.display());
        run(&format!("tc filter add dev eth0 ingress prio 7 {other}"));
        let filters = |side: &str| run(&format!("tc filter show dev eth0 {side}"));
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut dataplane = sandbox.open();
            dataplane.attachments.use_clsact();
            let report = dataplane.sync_devices(&[device("eth0")], &[]);
            assert!(report.problems.is_empty(), "{report:?}");
            drop(dataplane);
            for (side, program) in [("ingress", "kp_ingress"), ("egress", "kp_egress")] {
                let text = filters(side);
                let ours = format!(" {program} direct-action ");
                assert_eq!(text.matches(&ours).count(), 1, "{text}");
            }
            assert!(filters("ingress").contains("pref 7 "));
            // `kproxy status` knows them, and not the one of somebody else.
            let told: Vec<_> =
                sandbox.links().into_iter().map(|(name, on, link, _)| (name, on, link)).collect();
            let ours = |name: &str| (name.to_owned(), Some("eth0".to_owned()), 0);
            assert_eq!(told, [ours("kp_egress"), ours("kp_ingress")]);
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
        dataplane.attachments.use_clsact();
        dataplane.sync_devices(&[device("eth0")], &[]);
        dataplane.sync_devices(&[], &[]);
        assert!(!filters("ingress").contains("kp_ingress") && filters("egress").is_empty());
    });
}

#[test]
fn pinned_maps_that_do_not_grow_keep_their_size_and_all_must_have_this_layout() {
    sandboxed(|sandbox| {
        let mut dataplane = sandbox.open();
        assert!(dataplane.reconcile([]).problems.is_empty());
        drop(dataplane);
        let larger = Settings { max_slots: 512, max_flows: 512, ..sandbox.settings() };
        let mut dataplane = Dataplane::open(&larger).unwrap();
        let report = dataplane.reconcile([]);
        let [problem, _of_unassured] = report.problems.as_slice() else { panic!("{report:?}") };
        assert_eq!(problem.object, "map KP_FLOWS");
        assert!(problem.what.contains("room for 128 entries"), "{problem}");
        assert_eq!(dataplane.usage().slots.capacity, 256);
        drop(dataplane);

        // The names' map in the place of the frontends'.
        let dirs = PinDirs::new(&sandbox.bpffs);
        let (names, frontends) = (dirs.map(map::NAMES), dirs.map(map::FRONTENDS));
        fs::rename(names, frontends).unwrap();
        let error = Dataplane::open(&sandbox.settings()).err().unwrap().to_string();
        assert!(error.contains("KP_FRONTENDS is not the one of this kproxy"), "{error}");
        assert!(error.contains("kproxy cleanup"), "{error}");
    });
}

/// Moves all pins of a version to where those of another one are.
fn move_pins(from: &PinDirs, to: &PinDirs) {
    for (from, to) in
        [(&from.maps, &to.maps), (&from.programs, &to.programs), (&from.links, &to.links)]
    {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten() {
            fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
        }
        fs::remove_dir(from).unwrap();
    }
    fs::remove_dir(&from.version).unwrap();
}

/// What another version says of its maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    TheSame,
    /// Flags of flows have other bits.
    OtherFlags,
    Nothing,
}

/// Has the version with these pins say it.
fn have_say(dirs: &PinDirs, says: Says) {
    let layout: Memory<u64> = open_memory(dirs, map::LAYOUT).unwrap();
    match says {
        Says::TheSame => {}
        Says::Nothing => assert!(layout.write(0, &7)),
        Says::OtherFlags => {
            let words = (0..layout.len()).filter_map(|index| layout.get(index));
            let text = String::from_utf8(words.flat_map(u64::to_ne_bytes).collect()).unwrap();
            let (fin, rst) = ("number FIN 8\nnumber RST 16", "number FIN 16\nnumber RST 8 ");
            let changed = text.replace(fin, rst);
            assert_ne!(changed, text);
            for (index, bytes) in (0..).zip(changed.as_bytes().as_chunks().0) {
                assert!(layout.write(index, &u64::from_ne_bytes(*bytes)));
            }
        }
    }
}

/// Both entries of a flow from this port, with these flags in addition.
fn flow(port: u16, flags: u16) -> [(FlowKey, FlowValue); 2] {
    let of = |addr: &str| Addr::from(ip(addr));
    let key = FlowKey {
        src: of("192.0.2.9"),
        dst: of("192.0.2.1"),
        src_port: Port::new(port),
        dst_port: Port::new(30_001),
        proto: 6,
        pad: [0; 3],
    };
    let to = FlowKey { dst: of("127.0.0.1"), dst_port: Port::new(8001), ..key };
    let last_seen = clock::in_seconds(clock::now());
    let forward = FlowValue { to, flags, last_seen, state: 3, ..FlowValue::default() };
    let flags = flags | flow_flags::REVERSE;
    [(key, forward), (to.reversed(), FlowValue { to: key.reversed(), flags, ..forward })]
}

#[test]
fn another_layout_version_hands_on_what_has_a_meaning_and_goes() {
    let cases = [Says::TheSame, Says::OtherFlags, Says::Nothing];
    for (version, says) in [2, 9].into_iter().flat_map(|of| cases.map(|says| (of, says))) {
        sandboxed(move |sandbox| {
            run("ip link add eth0 type veth peer name peer0");
            run("ip link set eth0 up");
            let plans = || [plan("a", "10.96.0.1", 30_001, &[8001, 8002])];
            let mut before = sandbox.open();
            before.reconcile(plans());
            before.attach_cgroup().unwrap();
            before.sync_devices(&[device("eth0")], &[]);
            let links = sandbox.links();
            drop(before);
            let maps = |dirs: &PinDirs| {
                map::handed_on()
                    .filter(|name| MapInfo::from_pin(dirs.map(name)).is_ok())
                    .map(|name| (name, MapInfo::from_pin(dirs.map(name)).unwrap().id()))
                    .collect::<BTreeSet<_>>()
            };
            let ours = PinDirs::new(&sandbox.bpffs);
            let other = PinDirs::of_version(ours.base.clone(), version);
            move_pins(&ours, &other);
            let theirs = maps(&other);
            have_say(&other, says);
            let mut their_flows: Flows = open_map(&other, map::FLOWS).unwrap();
            let their_config: Memory<Config> = open_memory(&other, map::CONFIG).unwrap();
            let mut insert = |port, flags| {
                for (key, value) in flow(port, flags) {
                    their_flows.insert(key, value, 0).unwrap();
                }
            };
            insert(1, flow_flags::FIN);

            let mut dataplane = sandbox.open();
            let shared = maps(&ours).intersection(&theirs).count();
            let unshared = match says {
                Says::TheSame => 0,
                Says::OtherFlags => 4,
                Says::Nothing => theirs.len(),
            };
            assert_eq!(theirs.len() - shared, unshared, "{says:?}");
            assert_eq!(dataplane.served().uplinks.len(), 1, "those of the other one");
            let report = dataplane.reconcile(plans());
            assert_eq!(report.problems, []);
            assert_eq!((report.writes, report.words) == (0, 0), says != Says::Nothing);
            assert!(other.version.exists(), "its programs are attached until ours are");
            dataplane.attach_cgroup().unwrap();
            // Opened and gone on with meanwhile.
            insert(2, 0);
            insert(1, flow_flags::FIN | flow_flags::REPLIED);
            assert_eq!(dataplane.sync_devices(&[device("eth0")], &[]).problems, []);
            assert!(!other.version.exists());
            for (old, new) in links.iter().zip(sandbox.links()) {
                assert_eq!((&old.0, &old.1), (&new.0, &new.1));
                let stays = says != Says::OtherFlags || old.1.is_none();
                assert_eq!(old.2 == new.2, stays, "of the cgroup, or without a second one beside");
                assert_ne!(old.3, new.3, "the program is the new one");
            }
            assert_eq!(sandbox.links().len(), links.len());
            let left = their_config.get(0).unwrap().flags & config_flags::LEAVING != 0;
            assert_eq!(left, says == Says::OtherFlags);
            let our_flows: Flows = open_map(&ours, map::FLOWS).unwrap();
            let flags = |port| {
                let [(key, _), _] = flow(port, 0);
                our_flows.get(&key, 0).ok().map(|value| value.flags)
            };
            let wanted = match says {
                Says::TheSame => Some((flow_flags::FIN | flow_flags::REPLIED, 0)),
                Says::OtherFlags => Some((flow_flags::RST | flow_flags::REPLIED, 0)),
                Says::Nothing => None,
            };
            assert_eq!(flags(1).zip(flags(2)), wanted, "{says:?}");
            assert!(!ours.version.join("unfinished").exists());
        });
    }
}

#[test]
fn programs_of_another_layout_version_beside_ours_are_told_and_removed() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        let serve = || {
            let mut dataplane = sandbox.open();
            dataplane.attach_cgroup().unwrap();
            assert_eq!(dataplane.sync_devices(&[device("eth0")], &[]).problems, []);
        };
        let ours = PinDirs::new(&sandbox.bpffs);
        let other = PinDirs::of_version(ours.base.clone(), 2);
        // Attached beside ours, as a kproxy does that knows nothing of others.
        let aside = PinDirs::of_version(sandbox.bpffs.join("aside"), 2);
        serve();
        move_pins(&ours, &aside);
        serve();
        move_pins(&aside, &other);
        assert_eq!(sandbox.pins().other_versions(), [2]);
        serve();
        assert!(!other.version.exists());
        assert!(sandbox.pins().other_versions().is_empty());
        assert_eq!(sandbox.links().len(), 10);
    });
}

#[test]
fn pins_that_somebody_has_taken_away_are_made_again() {
    sandboxed(|sandbox| {
        run("ip link add eth0 type veth peer name peer0");
        run("ip link add pod0 type veth peer name peer1");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut dataplane = sandbox.open();
        dataplane.reconcile([plan("a", "10.96.0.1", 30_001, &[port])]);
        dataplane.attach_cgroup().unwrap();
        let try_serve = |dataplane: &mut Dataplane| {
            let mut problems = dataplane.repair_pins().problems;
            problems.extend(dataplane.sync_devices(&[device("eth0")], &[device("pod0")]).problems);
            problems.extend(dataplane.repair_cgroup().problems);
            problems
        };
        // The kernel takes a program off some moments after the last pin of its link has gone, and refuses it
        // until then: the daemon tries again after a second.
        let serve = |dataplane: &mut Dataplane| {
            let mut problems = try_serve(dataplane);
            for _again in 0..100 {
                if problems.is_empty() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
                problems = try_serve(dataplane);
            }
            panic!("{problems:?}");
        };
        serve(&mut dataplane);
        let connect = || sandbox.shell("exec 3<>/dev/tcp/10.96.0.1/80").status.success();
        assert!(connect());
        let ids = |of_pods: bool| -> Vec<_> {
            let counts = |program: &str| of_pods || !program.starts_with("kp_pod");
            let links = sandbox.links().into_iter().filter(|(program, ..)| counts(program));
            links.map(|(program, _, id, _)| (program, id)).collect()
        };
        let ours = PinDirs::new(&sandbox.bpffs);
        let remove_maps = || fs::remove_dir_all(&ours.maps).unwrap();
        let remove_all = || fs::remove_dir_all(&ours.base).unwrap();
        let unmount = || nix::mount::umount2(&sandbox.bpffs, MntFlags::MNT_DETACH).unwrap();
        // Links of pods' devices are not held, but for what is left of a file system that is unmounted.
        for (take_away, of_pods) in
            [(&remove_maps as &dyn Fn(), true), (&remove_all, false), (&unmount, true)]
        {
            let (before, all) = (ids(of_pods), ids(true).len());
            take_away();
            serve(&mut dataplane);
            assert_eq!(ids(of_pods), before, "the links are those of before");
            assert_eq!(ids(true).len(), all);
            assert!(connect());
            assert_eq!(sandbox.pins().counters().unwrap().len(), 1, "the maps are those of before");
            let busy = Dataplane::open(&sandbox.settings()).err().unwrap().to_string();
            assert!(busy.starts_with("another kproxy is at work"), "{busy}");
        }
        drop(dataplane);
        assert_eq!(sandbox.open().reconcile([plan("a", "10.96.0.1", 30_001, &[port])]).words, 0);
    });
}

/// Without CAP_PERFMON the verifier lets no program compare packet pointers.
#[test]
fn what_the_verifier_refuses_is_one_line_that_names_the_program_and_the_reason() {
    use caps::{CapSet, Capability};

    sandboxed(|sandbox| {
        node::bpffs::ensure(&sandbox.bpffs).unwrap();
        for capability in [Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN] {
            caps::drop(None, CapSet::Effective, capability).unwrap();
        }
        let opened = Dataplane::open(&sandbox.settings()).map(drop);
        caps::set(None, CapSet::Effective, &caps::read(None, CapSet::Permitted).unwrap()).unwrap();
        let told = with_causes(&opened.unwrap_err());
        assert!(told.starts_with("the kernel refused the BPF program kp_"), "{told}");
        assert!(told.contains("please report this") && told.contains("prohibited"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    });
}
