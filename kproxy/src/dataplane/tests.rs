//! The data path as a whole, on the real kernel.

use std::net::TcpListener;

use super::{
    read::{
        Pins,
        hooks::{self, HookProgram, HookRow, ProgramNames},
    },
    sandbox::{self, ip, plan, sandboxed},
    *,
};

#[test]
fn a_restart_writes_nothing_and_keeps_every_link() {
    sandboxed(|sandbox| {
        let unreadable = || Pins::open(&sandbox.bpffs).err().unwrap().to_string();
        assert!(unreadable().starts_with("no BPF file system at "));
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
        assert_eq!((of(map::FRONTENDS).used, of(map::SLOTS).capacity), (8, 256));
        assert_eq!(pins.counters().unwrap().len(), 2);
        assert!(pins.drops().unwrap().is_empty() && pins.flows().unwrap().is_empty());

        drop((second, pins));
        let done = cleanup(&sandbox.bpffs);
        assert!(done.errors.is_empty(), "{done:?}");
        assert!(!sandbox.bpffs.join("kproxy").exists());
        assert!(unreadable().starts_with("no kproxy maps at "));
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
        dataplane
            .apply(vec![Change::Remove(plans[0].id.clone()), Change::Remove(plans[1].id.clone())]);
        assert!(dataplane.reconcile([plans[2].clone()]).problems.is_empty());
        assert_eq!(sandbox.pins().frontends().unwrap().len(), 2);
    });
}

#[test]
fn maps_grow_while_sockets_connect() {
    sandboxed(|sandbox| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = std::thread::spawn(move || listener.incoming().take(240).count());
        let service = |number: u8| {
            plan(
                &format!("s{number}"),
                &format!("10.96.0.{number}"),
                30_000 + u16::from(number),
                &[port],
            )
        };
        let most = Settings {
            max_services: 1024,
            max_slots: 65_536,
            max_frontends: 4096,
            ..sandbox.settings()
        };
        let mut small = sandbox.open();
        assert_eq!(small.reconcile((1..=20).map(service)).problems, []);
        drop(small);
        let mut dataplane = Dataplane::open(&most).unwrap();
        assert_eq!(dataplane.reconcile((1..=20).map(service)), Report::default());
        dataplane.attach_cgroup().unwrap();
        let mut sweeper = dataplane.flow_sweeper().unwrap();
        let links = sandbox.links();
        let connect = |to: &str, times: u32| {
            let script =
                format!("for i in $(seq {times}); do (exec 3<>/dev/tcp/{to}/80) || exit 1; done");
            sandbox.shell(&script).status.success()
        };
        assert!(connect("10.96.0.1", 20));
        let report = std::thread::scope(|scope| {
            let others = scope.spawn(|| connect("10.96.0.2", 200));
            let report = dataplane.apply((21..=200).map(|n| Change::Set(service(n))).collect());
            assert!(others.join().unwrap(), "no connection is refused meanwhile");
            report
        });
        assert_eq!(report.problems, []);
        assert!(connect("10.96.0.200", 10) && connect("10.96.0.1", 10));
        assert_eq!(accepted.join().unwrap(), 240);
        let Usage { frontends, services, slots, .. } = dataplane.usage();
        assert_eq!((services, slots.used), (Fill { used: 400, capacity: 1024 }, 200));
        assert!(slots.capacity == 512 && frontends.capacity == 1024, "{slots:?} {frontends:?}");
        for (old, new) in links.iter().zip(sandbox.links()) {
            assert_eq!((&old.0, old.2), (&new.0, new.2), "the link stays");
            assert_ne!(old.3, new.3, "the program is the new one");
        }
        let counted: u64 =
            sandbox.pins().counters().unwrap().iter().map(|row| row.connections).sum();
        // What a program counts between the copy and its end is lost.
        assert!((238..=240).contains(&counted), "{counted}");
        let config = dataplane.config();
        assert_eq!(sweeper.sweep(&config, false, |_| false).unwrap().removed, 0);
        assert!(
            !sandbox
                .shell(&format!("ls {}/kproxy/*/maps | grep '~'", sandbox.bpffs.display()))
                .status
                .success()
        );

        drop((dataplane, sweeper));
        let mut again = Dataplane::open(&most).unwrap();
        assert_eq!(again.reconcile((1..=200).map(service)), Report::default());
    });
}

#[test]
fn maps_that_cannot_grow_serve_what_fits_and_grow_later() {
    sandboxed(|sandbox| {
        let service = |number: u8| {
            let (name, addr) = (format!("s{number}"), format!("10.96.0.{number}"));
            plan(&name, &addr, 30_000 + u16::from(number), &[8000])
        };
        drop(sandbox.open());
        let most = Settings { max_services: 1024, max_frontends: 4096, ..sandbox.settings() };
        let mut dataplane = Dataplane::open(&most).unwrap();
        // Something is in the way of the new maps.
        let maps = PinDirs::new(&sandbox.bpffs).maps;
        let in_the_way = maps.join(format!("{}~", map::SERVICES));
        std::fs::create_dir(&in_the_way).unwrap();
        let report = dataplane.reconcile((1..=40).map(service));
        let of_maps = |report: &Report| {
            report.problems.iter().any(|problem| problem.what.contains("cannot be made larger"))
        };
        assert!(of_maps(&report), "{report:?}");
        assert!(
            report.problems.iter().any(|problem| problem.what.contains("KP_FRONTENDS is full"))
        );
        let served = sandbox.pins().frontends().unwrap().len();
        assert!(served > 30, "{served}");
        assert!(!of_maps(&dataplane.apply(vec![Change::Set(service(41))])), "not each time");
        std::fs::remove_dir(&in_the_way).unwrap();
        assert_eq!(dataplane.reconcile((1..=41).map(service)).problems, []);
        assert_eq!(sandbox.pins().frontends().unwrap().len(), 82);
    });
}

#[test]
fn with_no_slot_free_an_endpoint_that_is_gone_gets_no_connection() {
    sandboxed(|sandbox| {
        let mut listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        listeners.sort_by_key(port);
        let ports = [0, 1, 2].map(|i| port(&listeners[i]));
        let [_first, gone, _last] = listeners;
        let settings = Settings { max_slots: 3, ..sandbox.settings() };
        let mut dataplane = Dataplane::open(&settings).unwrap();
        let host_netns = node::netns::cookie().unwrap();
        dataplane.change_config(|config| config.host_netns = host_netns);
        let report = dataplane.reconcile([plan("web", "10.96.0.1", 30_001, &ports)]);
        assert_eq!(report.problems, []);
        dataplane.attach_cgroup().unwrap();
        drop(gone);
        let all_connect = || {
            let connect =
                "for i in 1 2 3 4 5 6; do (exec 3<>/dev/tcp/10.96.0.1/80) || exit 1; done";
            sandbox.shell(connect).status.success()
        };
        assert!(!all_connect(), "one of three is dead");

        let left = plan("web", "10.96.0.1", 30_001, &[ports[0], ports[2]]);
        let report = dataplane.apply(vec![Change::Set(left.clone())]);
        assert_eq!((report.writes, report.words, report.problems.len()), (0, 1, 1));
        assert!(all_connect());
        assert_eq!(sandbox.pins().backends().unwrap().len(), 1, "the other one waits");
        std::thread::sleep(writer::GRACE_PERIOD);
        assert_eq!(dataplane.reconcile([left]).problems, []);
        assert!(all_connect());
        assert_eq!(sandbox.pins().backends().unwrap().len(), 2);
    });
}

#[test]
fn the_data_path_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Dataplane>();
}

#[test]
fn the_hooks_tell_whose_programs_run_there_and_in_which_order() {
    sandboxed(|sandbox| {
        sandbox::run("ip link add d0 type veth peer name d1");
        sandbox::run("ip link set d0 up");
        let device = sandbox::device("d0");
        let hooks = |names: &ProgramNames| hooks::of_device(&device, names).unwrap();
        assert_eq!(hooks(&ProgramNames::read()), []);
        let mut dataplane = sandbox.open();
        assert_eq!(dataplane.sync_devices(std::slice::from_ref(&device), &[]).problems, []);
        dataplane.attach_cgroup().unwrap();
        let names = ProgramNames::read();
        let shown = |rows: Vec<HookRow>| -> Vec<String> {
            let name = |row: &HookRow| format!("{} {}", row.hook, row.programs[0].name);
            assert!(rows.iter().all(|row| row.programs.iter().all(HookProgram::is_ours)));
            rows.iter().map(name).collect()
        };
        assert_eq!(shown(hooks(&names)), ["ingress kp_ingress", "egress kp_egress"]);
        let cgroup = hooks::of_cgroup(&sandbox.settings().cgroup_root.unwrap(), &names).unwrap();
        let [connect4, .., recvmsg6] = &shown(cgroup)[..] else { panic!("no hooks") };
        assert_eq!([connect4, recvmsg6], ["connect4 kp_connect4", "recvmsg6 kp_recvmsg6"]);
        let ids = sandbox.links();
        let of_ingress = hooks(&names)[0].programs[0].id;
        assert!(ids.iter().any(|(name, _, _, id)| name == "kp_ingress" && *id == of_ingress));
        assert_eq!(try_programs().unwrap(), 20);
    });
}
