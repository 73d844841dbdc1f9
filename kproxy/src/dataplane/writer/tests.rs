//! The writer on maps in memory.

mod algorithms;
mod full;
mod history;
mod ranges;
mod verified;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use kproxy_common::{
    filter,
    net::{Addr, Port, proto},
    service::frontend_flags,
};

use super::{
    Writer,
    fake::{Arrays, Crash, FakeMaps},
    maps::Maps as _,
};
use crate::{
    dataplane::codec,
    plan::{
        Algorithm, Backend, BackendSet, Change, EmptyVerdict, Family, Frontend, FrontendKind,
        Protocol, Scope, ServicePortId, ServicePortPlan, Sources,
    },
};

const T0: Duration = Duration::from_secs(1000);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port_id(number: u8) -> ServicePortId {
    ServicePortId {
        namespace: "default".into(),
        name: format!("svc{number}"),
        port: String::new(),
        // UDP sets have further slots behind their backends.
        protocol: if number % 4 == 3 { Protocol::Udp } else { Protocol::Tcp },
        family: Family::V4,
    }
}

/// Endpoints that only keep what they have.
fn serving(numbers: impl IntoIterator<Item = u8>) -> Vec<(IpAddr, u16)> {
    backends(numbers).iter().map(|backend| (backend.addr, backend.port)).collect()
}

fn backends(numbers: impl IntoIterator<Item = u8>) -> Vec<Backend> {
    let backend = |n| Backend { addr: IpAddr::from([10, 244, 0, n]), port: 8080, local: n < 4 };
    numbers.into_iter().map(backend).collect()
}

fn frontend(kind: FrontendKind, addr: IpAddr, port: u16) -> Frontend {
    Frontend {
        kind,
        addr,
        port,
        internal: Scope::Cluster,
        external: Scope::Cluster,
        sources: Sources::All,
    }
}

/// A ClusterIP 10.96.0.N:80 with these backends.
fn plan(number: u8, numbers: impl IntoIterator<Item = u8>) -> ServicePortPlan {
    ServicePortPlan {
        id: port_id(number),
        frontends: vec![frontend(FrontendKind::ClusterIp, IpAddr::from([10, 96, 0, number]), 80)],
        cluster: BackendSet { backends: backends(numbers), when_empty: EmptyVerdict::Reject },
        local: None,
        serving: Vec::new(),
        created: None,
        affinity_seconds: None,
        algorithm: Algorithm::RoundRobin,
        source_ranges: Vec::new(),
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn with_node_port(mut plan: ServicePortPlan, port: u16) -> ServicePortPlan {
    plan.frontends.push(frontend(FrontendKind::NodePort, ip("0.0.0.0"), port));
    plan
}

fn node() -> BTreeSet<IpAddr> {
    ["192.0.2.1", "127.0.0.1", "2001:db8::1"].map(ip).into()
}

fn bit(addr: &str) -> u32 {
    filter::bit(&Addr::from(ip(addr)))
}

fn node_port_bit(port: u16, proto: u8) -> u32 {
    filter::bit_of_node_port(Port::new(port), proto)
}

fn writer(maps: &FakeMaps) -> Writer<FakeMaps> {
    Writer::open(maps.clone()).unwrap()
}

#[test]
fn a_changed_set_needs_no_call_and_an_unchanged_plan_nothing_at_all() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    let report = writer.reconcile([plan(1, [1, 2]), plan(2, [])], T0);
    assert!(report.problems.is_empty());
    assert_eq!((report.writes, report.words), (6, 2), "two names, two frontends, two addresses");

    let report = writer.apply(vec![Change::Set(plan(1, [1, 2, 3]))], T0);
    assert_eq!((report.writes, report.words), (0, 1));
    assert_eq!(
        maps.meaning().ports[&port_id(1)][0].as_ref().unwrap().backends,
        backends([1, 2, 3])
    );

    let index = codec::index_of(maps.id_of(&port_id(1)).unwrap(), Scope::Cluster);
    let before = maps.arrays.services.get(index);
    assert!(writer.apply(vec![Change::Set(plan(1, [1, 2, 3]))], T0).is_empty());
    assert!(writer.reconcile([plan(1, [1, 2, 3]), plan(2, [])], T0).is_empty());
    assert_eq!(maps.arrays.services.get(index), before, "not even the generation moves");
}

#[test]
fn a_restart_on_a_correct_node_writes_nothing() {
    let maps = FakeMaps::new(16, 64, 64);
    let plans = [with_node_port(plan(1, [1, 2]), 30_080), plan(2, [7])];
    let mut first = writer(&maps);
    first.set_node_addresses(&node());
    assert!(first.reconcile(plans.clone(), T0).problems.is_empty());
    let calls = maps.calls();

    let mut second = writer(&maps.reopened());
    assert!(second.set_node_addresses(&node()).is_empty());
    assert!(second.reconcile(plans.clone(), T0).is_empty());
    // In the other order too.
    let mut third = writer(&maps.reopened());
    assert!(third.reconcile(plans, T0).is_empty());
    assert!(third.set_node_addresses(&node()).is_empty());
    assert_eq!(maps.calls(), calls);
}

#[test]
fn ct_05_udp_endpoints_that_serve_on_stand_behind_the_run_and_need_no_call() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut first = writer(&maps);
    let mut udp = plan(3, [1, 2]);
    first.reconcile([udp.clone(), plan(2, [5])], T0);
    udp.serving = serving([8, 9]);
    let report = first.apply(vec![Change::Set(udp.clone())], T0);
    assert_eq!((report.writes, report.words), (0, 1));
    assert!(first.apply(vec![Change::Set(udp.clone())], T0).is_empty());
    assert_eq!(maps.meaning().ports[&port_id(3)][0].as_ref().unwrap().backends, backends([1, 2]));

    // A restart knows them, and until it has planned nobody is told to leave.
    let mut second = writer(&maps.reopened());
    let index = codec::index_of(maps.id_of(&port_id(3)).unwrap(), Scope::Cluster);
    let serves = |writer: &Writer<FakeMaps>, numbers: [u8; 3]| {
        let serves = |n: u8| {
            let backend = codec::encode_slot(&backends([n])[0]);
            writer.serves(index, backend.addr, backend.port)
        };
        numbers.map(serves)
    };
    assert_eq!(serves(&second, [1, 9, 20]), [true; 3], "not planned yet");
    assert!(second.reconcile([udp.clone(), plan(2, [5])], T0).is_empty());
    assert_eq!(serves(&second, [1, 9, 20]), [true, true, false]);
    assert_eq!(second.fills()[2].used, 5, "two backends, two others, and one of the other port");
    udp.serving.clear();
    second.apply(vec![Change::Set(udp)], T0);
    assert_eq!(serves(&second, [1, 9, 20]), [true, false, false]);
    // A service port that is gone keeps nothing.
    second.apply(vec![Change::Remove(port_id(3))], T0);
    assert_eq!(serves(&second, [1, 9, 20]), [false; 3]);
}

#[test]
fn ver_01_and_ver_04_an_empty_set_carries_its_verdict() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    let mut wanted = plan(1, [9]);
    wanted.frontends[0].external = Scope::Local;
    wanted.local = Some(BackendSet { backends: vec![], when_empty: EmptyVerdict::Drop });
    writer.reconcile([wanted.clone()], T0);
    let set = |maps: &FakeMaps, scope: Scope| {
        let meaning = maps.meaning();
        let set = meaning.ports[&port_id(1)][scope as usize].as_ref().unwrap();
        (set.backends.len(), set.empty)
    };
    assert_eq!(set(&maps, Scope::Cluster), (1, None));
    assert_eq!(set(&maps, Scope::Local), (0, Some(EmptyVerdict::Drop)));

    wanted.cluster.backends.clear();
    wanted.local = Some(BackendSet { backends: vec![], when_empty: EmptyVerdict::Reject });
    let report = writer.apply(vec![Change::Set(wanted.clone())], T0);
    assert_eq!((report.writes, report.words), (0, 2));
    assert_eq!(set(&maps, Scope::Cluster), (0, Some(EmptyVerdict::Reject)));
    assert_eq!(set(&maps, Scope::Local), (0, Some(EmptyVerdict::Reject)));

    // The local set goes when nobody leads to it any more.
    wanted.local = None;
    wanted.frontends[0].external = Scope::Cluster;
    writer.apply(vec![Change::Set(wanted)], T0);
    assert_eq!(maps.meaning().ports[&port_id(1)][1], None);
}

#[test]
fn loopback_is_served_while_a_node_port_answers_there() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    writer.set_node_addresses(&node());
    writer.reconcile([plan(1, [1])], T0);
    assert!(!writer.serves_loopback());
    writer.apply(vec![Change::Set(with_node_port(plan(1, [1]), 30_080))], T0);
    assert!(writer.serves_loopback());
    writer.set_node_addresses(&[ip("192.0.2.1"), ip("::1")].into());
    assert!(!writer.serves_loopback(), "no NodePort over IPv6");
    writer.set_node_addresses(&node());
    assert!(writer.serves_loopback());
    writer.apply(vec![Change::Remove(port_id(1))], T0);
    assert!(!writer.serves_loopback());
}

#[test]
fn node_addresses_pass_the_filter_only_while_there_are_node_ports() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    writer.set_node_addresses(&node());
    writer.reconcile([plan(1, [1])], T0);
    assert_eq!(maps.meaning().filter, [bit("10.96.0.1")].into());
    writer.apply(vec![Change::Set(with_node_port(plan(1, [1]), 30_080))], T0);
    let mut wanted: BTreeSet<u32> = ["10.96.0.1", "192.0.2.1", "127.0.0.1"].map(bit).into();
    wanted.insert(node_port_bit(30_080, proto::TCP));
    assert_eq!(maps.meaning().filter, wanted, "no NodePort over IPv6");

    let fewer = [ip("127.0.0.1"), ip("10.96.0.1")].into();
    assert_eq!(writer.set_node_addresses(&fewer).writes, 3);
    let meaning = maps.meaning();
    let both = frontend_flags::NODE_ADDRESS | frontend_flags::SERVICE_ADDRESS;
    assert_eq!(meaning.addresses[&Addr::from(ip("10.96.0.1"))], both);
    assert_eq!(meaning.addresses.len(), 2);
    writer.apply(vec![Change::Remove(port_id(1))], T0);
    let meaning = maps.meaning();
    assert!(meaning.filter.is_empty() && meaning.ports.is_empty() && meaning.frontends.is_empty());
    assert_eq!(meaning.addresses.len(), 2);
}

#[test]
fn node_ports_are_in_the_filter_as_long_as_a_family_has_them() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    let mut v6 = with_node_port(plan(3, [1]), 30_053);
    v6.frontends[1].addr = ip("::");
    let v4 = with_node_port(plan(7, [1]), 30_053);
    assert_eq!(v4.id.protocol, Protocol::Udp);
    writer.reconcile([v4, v6, with_node_port(plan(1, [1]), 30_053)], T0);
    let has = |protocol| maps.meaning().filter.contains(&node_port_bit(30_053, protocol));
    assert_eq!([proto::TCP, proto::UDP, proto::SCTP].map(has), [true, true, false]);
    let entries = maps.meaning().addresses;
    assert_eq!(entries.len(), 3, "the ClusterIPs: {entries:?}");
    writer.apply(vec![Change::Remove(port_id(7))], T0);
    assert!(has(proto::UDP), "over IPv6");
    writer.apply(vec![Change::Remove(port_id(3))], T0);
    assert_eq!([proto::TCP, proto::UDP].map(has), [true, false]);

    // A restart takes them over, and repairs what a crash has left.
    let (word, mask) = filter::position(node_port_bit(30_053, proto::TCP));
    maps.address_filter().change_bits(word, mask, 0);
    let plans = [with_node_port(plan(1, [1]), 30_053)];
    assert!(Writer::open(maps.reopened()).unwrap().reconcile(plans, T0).is_empty());
    assert!(has(proto::TCP));
}

#[test]
fn a_frontend_that_passes_to_another_service_is_replaced_in_one_step() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    writer.reconcile([plan(1, [1])], T0);
    let mut other = plan(2, [2]);
    other.frontends = plan(1, []).frontends;
    // Name of the new one, the frontend, name of the old one.
    let changes = vec![Change::Remove(port_id(1)), Change::Set(other)];
    assert_eq!(writer.apply(changes, T0).writes, 3);
    let meaning = maps.meaning();
    let owners: Vec<_> = meaning.frontends.values().map(|(owner, ..)| owner.clone()).collect();
    assert_eq!(owners, [port_id(2)]);
    assert_eq!(meaning.filter, [bit("10.96.0.1")].into());
}

#[test]
fn ver_19_a_frontend_wanted_twice_stays_with_the_first_until_it_leaves() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    writer.reconcile([plan(2, [1])], T0);
    let mut other = plan(1, [2]);
    other.frontends.push(plan(2, []).frontends.remove(0));
    let report = writer.apply(vec![Change::Set(other)], T0);
    let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
    assert_eq!(problem.object, "Service default/svc1");
    assert!(problem.what.contains("10.96.0.2:80 TCP already leads to Service default/svc2"));

    writer.apply(vec![Change::Remove(port_id(2))], T0);
    assert!(writer.apply(vec![], T0).problems.is_empty());
    let meaning = maps.meaning();
    assert!(meaning.frontends.values().all(|(owner, ..)| *owner == port_id(1)));
    assert_eq!(meaning.frontends.len(), 2);
}

#[test]
fn an_address_that_a_service_lists_twice_is_one_entry_of_both_kinds() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    let mut wanted = plan(1, [1]);
    wanted.frontends.push(frontend(FrontendKind::ExternalIp, ip("198.51.100.1"), 80));
    wanted.frontends.push(frontend(FrontendKind::LoadBalancer, ip("198.51.100.1"), 80));
    assert!(writer.reconcile([wanted.clone()], T0).problems.is_empty());
    let flags = maps.meaning().frontends.values().map(|value| value.3).max();
    assert_eq!(flags, Some(frontend_flags::EXTERNAL_IP | frontend_flags::LOAD_BALANCER));
    assert!(writer.reconcile([wanted], T0).is_empty());
}

#[test]
fn a_full_map_refuses_one_service_by_name_and_serves_it_later() {
    // Three frontends, and address entries for two of the three ClusterIPs.
    let maps = FakeMaps::new(64, 64, 5);
    let mut writer = writer(&maps);
    let report = writer.reconcile((1..=3).map(|n| plan(n, [n])), T0);
    let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
    assert_eq!(problem.object, "Service default/svc3");
    assert!(problem.what.contains("unknown ports of 10.96.0.3 are not refused"), "{problem}");

    let report = writer.apply(vec![Change::Set(plan(4, [4]))], T0);
    let about: Vec<_> = report.problems.iter().filter(|p| p.object.ends_with("svc4")).collect();
    let [problem] = about.as_slice() else { panic!("{report:?}") };
    assert!(problem.what.contains("10.96.0.4:80 TCP does not lead to it"), "{problem}");
    assert_eq!(writer.apply(vec![], T0).writes, 0, "not tried again while nothing was freed");

    writer.apply(vec![Change::Remove(port_id(1)), Change::Remove(port_id(2))], T0);
    assert!(writer.apply(vec![], T0).problems.is_empty());
    let meaning = maps.meaning();
    assert_eq!((meaning.frontends.len(), meaning.addresses.len()), (2, 2));
    assert!(writer.apply(vec![], T0).is_empty());
}

#[test]
fn too_few_slots_leave_the_old_set_in_force() {
    let maps = FakeMaps::new(16, 8, 64);
    let mut writer = writer(&maps);
    writer.reconcile([plan(1, [1, 2, 3]), plan(2, [4])], T0);
    let report = writer.apply(vec![Change::Set(plan(1, 1..=5)), Change::Set(plan(2, [5]))], T0);
    let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
    assert_eq!(problem.object, "Service default/svc1");
    assert!(problem.what.contains("its earlier backends stay in use"), "{problem}");
    let set = |n: u8| maps.meaning().ports[&port_id(n)][0].as_ref().unwrap().backends.clone();
    assert_eq!((set(1), set(2)), (backends([1, 2, 3]), backends([5])));

    // A new service that does not fit is not there at all: its traffic passes untouched.
    let report = writer.apply(vec![Change::Set(plan(3, 1..=9))], T0);
    assert!(report.problems[0].what.contains("it is not served"));
    assert!(!maps.meaning().ports.contains_key(&port_id(3)));

    // The slot that service 2 gave back has rested: now the three services fit.
    let report = writer.apply(vec![Change::Set(plan(3, []))], T0 + Duration::from_secs(3));
    assert_eq!(report.problems.len(), 1, "five slots are still too many: {report:?}");
    writer.apply(vec![Change::Set(plan(1, [9]))], T0 + Duration::from_secs(3));
    assert_eq!(set(1), backends([9]));
}

#[test]
fn too_few_services_refuse_the_last_one_and_its_id_comes_back_clean() {
    let maps = FakeMaps::new(4, 64, 64);
    let mut writer = writer(&maps);
    let report = writer.reconcile((1..=3).map(|n| plan(n, [n])), T0);
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].what.contains("KP_SERVICES is full"), "{report:?}");
    maps.mark_counters();
    writer.apply(vec![Change::Remove(port_id(1))], T0);
    assert!(!maps.meaning().ports.contains_key(&port_id(3)), "the id rests first");
    writer.apply(vec![], T0 + Duration::from_secs(2));
    assert!(maps.meaning().ports.contains_key(&port_id(3)));
    assert!(!maps.counters_are_dirty(maps.id_of(&port_id(3)).unwrap()));
}

#[test]
fn contradictions_in_the_maps_are_repaired() {
    let maps = FakeMaps::new(16, 64, 64);
    let plans = [plan(1, [1, 2]), plan(2, [3])];
    writer(&maps).reconcile(plans.clone(), T0);
    let id = maps.id_of(&port_id(1)).unwrap();
    let index = codec::index_of(id, Scope::Cluster);
    let mut wrong = maps.reopened();
    // A word beyond the end, a set and a name that nobody owns, a frontend and an address that
    // lead nowhere, filter bits too many and too few.
    let entry = kproxy_common::service::Service {
        word: kproxy_common::service::Word { first: 63, count: 9, generation: 3 }.pack(),
        flags: 1,
        affinity_seconds: 0,
    };
    assert!(maps.arrays.services.publish(index, &entry));
    assert!(maps.arrays.services.publish(9, &entry));
    wrong.set_name(7, &codec::encode_name(&port_id(9)).unwrap()).unwrap();
    let (key, value) = codec::encode_frontends(&plan(9, []), 5).pop_first().unwrap();
    wrong.set_frontend(&key, &value).unwrap();
    let address = kproxy_common::service::FrontendKey::address(Addr::from(ip("10.96.9.9")));
    wrong.set_frontend(&address, &kproxy_common::service::FrontendValue::default()).unwrap();
    wrong.set_range(7, &net("192.0.2.0/24")).unwrap();
    wrong.set_range(id, &net("192.0.2.0/24")).unwrap();
    wrong.address_filter().change_bits(5, 0, u64::MAX);
    let (word, mask) = filter::position(bit("10.96.0.1"));
    wrong.address_filter().change_bits(word, mask, 0);

    let report = writer(&wrong).reconcile(plans.clone(), T0);
    assert!(report.problems.is_empty(), "{report:?}");
    let anew = FakeMaps::new(16, 64, 64);
    writer(&anew).reconcile(plans, T0);
    assert_eq!(maps.meaning(), anew.meaning());
}

#[test]
fn aff_07_a_changed_timeout_reaches_both_sets_without_a_call_and_moves_no_backend() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    let mut wanted = plan(1, [1, 9]);
    wanted.frontends[0].external = Scope::Local;
    wanted.local = Some(BackendSet { backends: backends([1]), when_empty: EmptyVerdict::Drop });
    writer.reconcile([wanted.clone()], T0);
    let id = maps.id_of(&port_id(1)).unwrap();
    let entries = |maps: &FakeMaps| {
        [Scope::Cluster, Scope::Local]
            .map(|scope| maps.arrays.services.get(codec::index_of(id, scope)).unwrap())
    };
    let words = entries(&maps).map(|entry| entry.word);
    for seconds in [Some(10_800), Some(5), None] {
        wanted.affinity_seconds = seconds;
        let report = writer.apply(vec![Change::Set(wanted.clone())], T0);
        assert_eq!((report.writes, report.words), (0, 2));
        let now = entries(&maps);
        assert_eq!(now.map(|entry| entry.affinity_seconds), [seconds.unwrap_or(0); 2]);
        assert_eq!(now.map(|entry| entry.word), words, "sockets and flows see no change");
    }
}

fn crashes(work: impl FnOnce()) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(work)) else { return false };
    assert!(payload.is::<Crash>(), "a panic that is no crash");
    true
}

/// The version that a reader finds in a service's set; the address says which set it belongs to.
fn read_version(arrays: &Arrays, id: u32, turn: u32) -> Option<(u8, u32)> {
    let word = codec::word_of(&arrays.services.get(codec::index_of(id, Scope::Cluster))?);
    let slot = kproxy_common::select::round_robin(word, turn)?;
    let IpAddr::V4(addr) = codec::decode_slot(&arrays.slots.get(slot)?).addr else { return None };
    let [service, high, middle, low] = addr.octets();
    Some((service, u32::from_be_bytes([0, high, middle, low])))
}

#[test]
fn a_reader_sees_the_old_set_or_the_new_one_and_never_another() {
    const SERVICES: u8 = 4;
    const CHANGES: u32 = 10_000;
    let maps = FakeMaps::new(16, 1 << 20, 64);
    let versioned = |service: u8, version: u32| {
        let [_, high, middle, low] = version.to_be_bytes();
        let mut plan = plan(service, []);
        // Sets of different lengths, so that a mix would reach beyond its run.
        plan.cluster.backends = (0..1 + version % 7)
            .map(|port| Backend {
                addr: IpAddr::from([service, high, middle, low]),
                port: port as u16 + 1,
                local: false,
            })
            .collect();
        plan
    };
    let mut writer = writer(&maps);
    let start = Instant::now();
    let report = writer.reconcile((0..SERVICES).map(|service| versioned(service, 0)), T0);
    assert!(report.problems.is_empty(), "{report:?}");
    let ids: Vec<u32> = (0..SERVICES).map(|n| maps.id_of(&port_id(n)).unwrap()).collect();
    let calls = maps.calls();

    // A change of version V is in force at some moment between `started` and `done` reaching V.
    let started: Arc<Vec<AtomicU32>> = Arc::new((0..SERVICES).map(|_| AtomicU32::new(0)).collect());
    let done: Arc<Vec<AtomicU32>> = Arc::new((0..SERVICES).map(|_| AtomicU32::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let reads = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3u32)
            .map(|reader| {
                let (arrays, stop) = (Arc::clone(&maps.arrays), Arc::clone(&stop));
                let (started, done, ids) = (Arc::clone(&started), Arc::clone(&done), ids.clone());
                scope.spawn(move || {
                    let mut reads = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        let service = (reads.wrapping_add(reader) % u32::from(SERVICES)) as usize;
                        let oldest = done[service].load(Ordering::SeqCst);
                        let seen = read_version(&arrays, ids[service], reads);
                        let newest = started[service].load(Ordering::SeqCst);
                        let (owner, version) = seen.expect("a backend");
                        assert_eq!(usize::from(owner), service, "a backend of another service");
                        assert!(
                            (oldest..=newest).contains(&version),
                            "{oldest} {version} {newest}"
                        );
                        reads = reads.wrapping_add(1);
                    }
                    reads
                })
            })
            .collect();
        for change in 1..=CHANGES {
            let service = (change % u32::from(SERVICES)) as u8;
            started[usize::from(service)].store(change, Ordering::SeqCst);
            let plan = versioned(service, change);
            let report = writer.apply(vec![Change::Set(plan)], T0 + start.elapsed());
            assert_eq!((report.writes, report.words), (0, 1));
            done[usize::from(service)].store(change, Ordering::SeqCst);
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u32>()
    });
    assert!(reads > 0);
    assert_eq!(maps.calls(), calls, "ten thousand changes of endpoints, no call");
}
