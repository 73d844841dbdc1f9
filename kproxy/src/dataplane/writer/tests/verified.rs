//! What the writer has written is what was planned, by the eyes of `kproxy verify`; damage is named, and mended once
//! the maps are read again.

use kproxy_common::service::{FrontendKey, FrontendValue, Service, Slot};

use super::*;
use crate::dataplane::verify::{self, Finding, Held, HeldSet};

fn held(maps: &FakeMaps) -> Held {
    let names = maps.names().unwrap();
    let names = names.iter().filter_map(|(id, name)| Some((*id, codec::decode_name(name)?)));
    let set = |index| {
        let entry = maps.services().get(index)?;
        Some((index, HeldSet::of(entry, |slot| maps.slots().get(slot))?))
    };
    let mut held = Held {
        names: names.collect(),
        sets: (0..maps.services().len()).filter_map(set).collect(),
        slots: maps.slots().len(),
        filter: (0..filter::WORDS).filter_map(|word| maps.address_filter().get(word)).collect(),
        ..Held::default()
    };
    for (id, net) in maps.ranges().unwrap() {
        held.ranges.entry(id).or_default().insert(net);
    }
    held.take_frontends(maps.frontends().unwrap());
    held
}

fn plans() -> Vec<ServicePortPlan> {
    let mut local = with_node_port(plan(2, [1, 4, 5]), 30_002);
    local.local = Some(BackendSet { backends: backends([1]), when_empty: EmptyVerdict::Drop });
    local.frontends[1].external = Scope::Local;
    let mut udp = plan(3, [1, 2]);
    udp.serving = serving([9]);
    let mut maglev = plan(4, [1, 2, 3]);
    (maglev.algorithm, maglev.affinity_seconds) = (Algorithm::Maglev, Some(60));
    let mut ranges = plan(5, [2]);
    ranges.source_ranges = vec![net("192.0.2.0/24")];
    ranges.frontends[0].sources = Sources::Ranges { node: false };
    vec![plan(1, []), local, udp, maglev, ranges]
}

/// What `kproxy verify` would say of these maps.
pub(super) fn found(
    maps: &FakeMaps,
    plans: &[ServicePortPlan],
    node: &BTreeSet<IpAddr>,
) -> Vec<String> {
    let held = held(maps);
    let mut findings = verify::services(&held, plans, |_| true);
    findings.extend(verify::addresses(&held, node));
    findings.extend(verify::contradictions(&held));
    findings.iter().map(Finding::text).collect()
}

/// A frontend's key.
fn key(addr: &str, port: u16) -> FrontendKey {
    FrontendKey::new(Addr::from(ip(addr)), Port::new(port), proto::TCP)
}

#[test]
fn what_is_written_is_what_was_planned() {
    let maps = FakeMaps::new(32, 4096, 64);
    let mut writer = writer(&maps);
    writer.set_node_addresses(&node());
    assert!(writer.reconcile(plans(), T0).problems.is_empty());
    assert_eq!(found(&maps, &plans(), &node()), [""; 0]);
    // And each change of a plan is told in its words.
    let differs = |change: &dyn Fn(&mut Vec<ServicePortPlan>)| {
        let mut plans = plans();
        change(&mut plans);
        found(&maps, &plans, &node())
    };
    type Change = fn(&mut Vec<ServicePortPlan>);
    let changes: [(Change, &[&str]); 11] = [
        (
            |plans| drop(plans.remove(0)),
            &[
                "service default/svc1 TCP/IPv4: planned none, the kernel has 0 backends",
                "frontend 10.96.0.1:80/TCP: planned none, the kernel has service default/svc1, ClusterIP",
            ],
        ),
        (
            |plans| plans.push(plan(6, [1])),
            &[
                "service default/svc6 TCP/IPv4: planned 1 backend, the kernel has none",
                "frontend 10.96.0.6:80/TCP: planned service default/svc6, ClusterIP, the kernel has none",
            ],
        ),
        (
            |plans| plans[1].cluster.backends = backends([1, 4, 6]),
            &[
                "backend 10.244.0.5:8080 of default/svc2 TCP/IPv4: planned none, the kernel has it in the Cluster set",
                "backend 10.244.0.6:8080 of default/svc2 TCP/IPv4: planned in the Cluster set, the kernel has none",
            ],
        ),
        (
            |plans| plans[1].local = None,
            &["set Local of default/svc2 TCP/IPv4: planned none, the kernel has 1 backend"],
        ),
        (
            |plans| plans[1].frontends[1].external = Scope::Cluster,
            &[
                "frontend NodePort 30002/TCP (IPv4): planned outside Cluster, the kernel has outside Local",
            ],
        ),
        (
            |plans| plans[0].cluster.when_empty = EmptyVerdict::Drop,
            &[
                "set Cluster of default/svc1 TCP/IPv4: planned drop while it is empty, the kernel has reject while it is empty",
            ],
        ),
        (
            |plans| plans[2].serving.clear(),
            &[
                "backend 10.244.0.9:8080 of default/svc3 UDP/IPv4: planned none, the kernel has it beside the Cluster set, for flows that it has",
            ],
        ),
        (
            |plans| plans[3].algorithm = Algorithm::Random,
            &[
                "set Cluster of default/svc4 TCP/IPv4: planned none, the kernel has a lookup table",
                "algorithm of default/svc4 TCP/IPv4: planned random, the kernel has maglev",
            ],
        ),
        (
            |plans| plans[3].affinity_seconds = None,
            &["affinity of default/svc4 TCP/IPv4: planned none, the kernel has 60 seconds"],
        ),
        (
            |plans| plans[4].source_ranges = vec![net("192.0.2.0/25")],
            &[
                "source range 192.0.2.0/24 of default/svc5 TCP/IPv4: planned none, the kernel has open to it",
                "source range 192.0.2.0/25 of default/svc5 TCP/IPv4: planned open to it, the kernel has none",
            ],
        ),
        (
            |plans| plans[4].frontends[0].sources = Sources::All,
            &["frontend 10.96.0.5:80/TCP: planned open to all, the kernel has open to ranges"],
        ),
    ];
    for (change, wanted) in changes {
        assert_eq!(differs(&change), wanted);
    }
}

#[test]
fn damage_is_named_and_mended_once_the_maps_are_read_again() {
    type Damage = fn(&mut FakeMaps);
    let damages: [(Damage, &[&str]); 8] = [
        (
            |maps| maps.remove_frontend(&key("10.96.0.1", 80)).unwrap(),
            &[
                "frontend 10.96.0.1:80/TCP: planned service default/svc1, ClusterIP, the kernel has none",
                "address 10.96.0.1: is known as a ClusterIP, and no frontend is one there",
            ],
        ),
        (
            |maps| {
                maps.set_frontend(
                    &key("10.96.9.9", 80),
                    &FrontendValue { internal: 20, external: 22, flags: 1 },
                )
                .unwrap()
            },
            &[
                "frontend 10.96.9.9:80/TCP: leads to service port 10, which has no name from inside, and to service \
             port 11, which has no name from outside",
                "address 10.96.9.9: is a ClusterIP, and is not known as one: its other ports are not refused",
                "address filter 10.96.9.9:80/TCP: is a frontend, and the filter lets nobody through to it",
            ],
        ),
        (
            |maps| maps.remove_name(0).unwrap(),
            &[
                "service default/svc1 TCP/IPv4: planned 0 backends, the kernel has none",
                "frontend 10.96.0.1:80/TCP: planned service default/svc1, ClusterIP, the kernel has no known service",
                "service port 0: has backends and no name",
                "frontend 10.96.0.1:80/TCP: leads to service port 0, which has no name",
            ],
        ),
        (
            |maps| {
                let first = codec::word_of(&maps.services().get(2).unwrap()).first;
                let slot = Slot { port: Port::new(7), ..maps.slots().get(first).unwrap() };
                assert!(maps.slots().write(first, &slot));
            },
            &[
                "backend 10.244.0.1:7 of default/svc2 TCP/IPv4: planned none, the kernel has it in the Cluster set, on this node",
                "backend 10.244.0.1:8080 of default/svc2 TCP/IPv4: planned in the Cluster set, on this node, the kernel has none",
            ],
        ),
        (
            |maps| {
                // The set of another one.
                let entry = Service {
                    word: maps.services().get(2).unwrap().word,
                    ..maps.services().get(4).unwrap()
                };
                assert!(maps.services().publish(4, &entry));
            },
            &[
                "backend 10.244.0.2:8080 of default/svc3 UDP/IPv4: planned in the Cluster set, on this node, the kernel has none",
                "slot",
            ],
        ),
        (
            |maps| {
                maps.address_filter().change_bits(filter::position(bit("10.96.0.1")).0, u64::MAX, 0)
            },
            &[
                "address filter 10.96.0.1:80/TCP: is a frontend, and the filter lets nobody through to it",
            ],
        ),
        (
            |maps| {
                maps.remove_frontend(&FrontendKey::address(Addr::from(ip("192.0.2.1")))).unwrap()
            },
            &[
                "address 192.0.2.1: planned this node's, NodePorts answer there, the kernel has none",
            ],
        ),
        (
            |maps| maps.remove_range(4, &net("192.0.2.0/24")).unwrap(),
            &[
                "source range 192.0.2.0/24 of default/svc5 TCP/IPv4: planned open to it, the kernel has none",
            ],
        ),
    ];
    for (number, (damage, wanted)) in damages.into_iter().enumerate() {
        let mut maps = FakeMaps::new(32, 4096, 64);
        let mut writer = writer(&maps);
        writer.set_node_addresses(&node());
        writer.reconcile(plans(), T0);
        damage(&mut maps);
        let found_now = found(&maps, &plans(), &node());
        for text in wanted {
            assert!(
                found_now.iter().any(|found| found.contains(text)),
                "{number}: {text}: {found_now:#?}"
            );
        }
        // Without looking, the writer knows nothing of it.
        writer.reread().unwrap();
        writer.set_node_addresses(&node());
        let report = writer.reconcile(plans(), T0 + Duration::from_secs(1));
        assert!(report.problems.is_empty(), "{number}: {:?}", report.problems);
        assert_eq!(found(&maps, &plans(), &node()), [""; 0], "{number}");
        let again = writer.reconcile(plans(), T0 + Duration::from_secs(2));
        assert_eq!((again.writes, again.words), (0, 0), "{number}");
    }
}

#[test]
fn what_was_given_back_goes_on_resting_when_the_maps_are_read_again() {
    let maps = FakeMaps::new(8, 8, 16);
    let mut writer = writer(&maps);
    writer.reconcile([plan(1, [1, 2, 3])], T0);
    writer.reconcile([plan(1, [4])], T0);
    assert_eq!(writer.slots.resting(), 3);
    writer.reread().unwrap();
    assert_eq!((writer.slots.resting(), writer.slots.used()), (3, 1));
    let report = writer.reconcile([plan(1, [4]), plan(2, [1, 2, 3])], T0);
    let first = writer.service_ports[&port_id(2)].runs[0].unwrap().first;
    assert!(report.problems.is_empty() && first >= 3, "{first}");
}
