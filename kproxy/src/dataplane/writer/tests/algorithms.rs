//! Algorithms: flags beside the word, and the tables of maglev behind the runs.

use kproxy_common::{
    maglev::table_slots,
    service::{Service, slot_flags},
};

use super::*;
use crate::dataplane::writer::allocator::GRACE_PERIOD;

/// A cluster-wide and a local set.
fn picked_by(algorithm: Algorithm, numbers: impl IntoIterator<Item = u8>) -> ServicePortPlan {
    let mut plan = plan(1, numbers);
    plan.frontends[0].external = Scope::Local;
    plan.local = Some(BackendSet { backends: backends([1]), when_empty: EmptyVerdict::Drop });
    plan.algorithm = algorithm;
    plan
}

fn entries(maps: &FakeMaps) -> [Service; 2] {
    let id = maps.id_of(&port_id(1)).unwrap();
    [Scope::Cluster, Scope::Local]
        .map(|scope| maps.arrays.services.get(codec::index_of(id, scope)).unwrap())
}

fn has_table(maps: &FakeMaps) -> [bool; 2] {
    entries(maps).map(|entry| {
        let first = maps.arrays.slots.get(codec::word_of(&entry).first).unwrap();
        first.flags & slot_flags::TABLE != 0
    })
}

#[test]
fn a_changed_algorithm_reaches_both_sets_without_a_call() {
    use Algorithm::{LeastConnections, Maglev, Random, RoundRobin};
    let maps = FakeMaps::new(16, 16_384, 64);
    let mut writer = writer(&maps);
    writer.reconcile([picked_by(RoundRobin, [1, 9])], T0);
    for algorithm in [Random, LeastConnections, Maglev, Random, Maglev, RoundRobin, Random] {
        let before = entries(&maps);
        let has_run = has_table(&maps)[0] == (algorithm == Maglev);
        let report = writer.apply(vec![Change::Set(picked_by(algorithm, [1, 9]))], T0);
        assert_eq!((report.writes, report.words, report.problems), (0, 2, vec![]));
        let now = entries(&maps);
        assert_eq!(now.map(|entry| codec::decode_algorithm(entry.flags)), [algorithm; 2]);
        assert_eq!(has_table(&maps), [algorithm == Maglev; 2]);
        let words = [before, now].map(|entries| entries.map(|entry| entry.word));
        assert_eq!(words[0] == words[1], has_run, "without a table sockets see no change");
        assert_eq!(maps.meaning().ports.len(), 1, "and no slot is used twice");
    }
    assert!(writer.counts_connections());
}

#[test]
fn connections_are_counted_from_the_first_service_that_asks_for_it_on() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut first = writer(&maps);
    first.reconcile([picked_by(Algorithm::Random, [1])], T0);
    assert!(!first.counts_connections());
    first.apply(vec![Change::Set(picked_by(Algorithm::LeastConnections, [1]))], T0);
    assert!(first.counts_connections());
    assert!(writer(&maps.reopened()).counts_connections(), "also after a restart");
}

#[test]
fn endpoints_of_maglev_change_in_one_word_and_a_restart_writes_nothing() {
    let maps = FakeMaps::new(16, 16_384, 64);
    let mut first = writer(&maps);
    first.reconcile([picked_by(Algorithm::Maglev, [1, 9])], T0);
    let report = first.apply(vec![Change::Set(picked_by(Algorithm::Maglev, [1, 2, 9]))], T0);
    assert_eq!((report.writes, report.words), (0, 1));
    let used = 3 + table_slots(3) + 1 + table_slots(1);
    assert_eq!(first.fills()[2].used, used);

    let mut again = writer(&maps.reopened());
    assert_eq!(again.fills()[2].used, used);
    assert!(again.reconcile([picked_by(Algorithm::Maglev, [1, 2, 9])], T0).is_empty());
    again.reconcile([], T0);
    assert_eq!(again.fills()[2].used, 0);
}

#[test]
fn udp_endpoints_that_only_keep_what_they_have_stand_before_the_table() {
    let maps = FakeMaps::new(16, 16_384, 64);
    let mut writer = writer(&maps);
    let wanted = ServicePortPlan {
        id: port_id(3),
        serving: serving([4, 5]),
        algorithm: Algorithm::Maglev,
        ..plan(1, [1, 9])
    };
    writer.reconcile([wanted.clone()], T0);
    assert_eq!(writer.fills()[2].used, 2 + 2 + table_slots(2));
    let index = codec::index_of(maps.id_of(&port_id(3)).unwrap(), Scope::Cluster);
    let word = codec::word_of(&maps.arrays.services.get(index).unwrap());
    let slot = |i| maps.arrays.slots.get(word.first + i).unwrap();
    assert_eq!(slot(0).extra, 2);
    assert_eq!([2, 3].map(|i| (slot(i).addr.into(), slot(i).port.get())), serving([4, 5])[..]);
    assert!(writer.reconcile([wanted], T0).is_empty());
}

#[test]
fn without_room_for_a_table_the_backends_take_turns_until_there_is() {
    // A quarter is left free.
    let maps = FakeMaps::new(16, 6000, 64);
    let mut writer = writer(&maps);
    let maglev = |number, backends: &[u8]| ServicePortPlan {
        algorithm: Algorithm::Maglev,
        ..plan(number, backends.iter().copied())
    };
    let report = writer.reconcile([maglev(1, &[1, 2, 3]), maglev(2, &[1])], T0);
    assert_eq!(report.problems, []);
    let report = writer.apply(vec![Change::Set(maglev(4, &[5, 6]))], T0);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    let text = report.problems[0].to_string();
    assert!(text.contains("no room for the table") && text.contains("--max-slots"), "{text}");
    let backends_of =
        |number| maps.meaning().ports[&port_id(number)][0].as_ref().unwrap().backends.clone();
    assert_eq!(backends_of(4), backends([5, 6]), "it is served all the same");
    // Its endpoints go on changing; trying again alone changes nothing.
    writer.apply(vec![Change::Set(maglev(4, &[5, 6, 7]))], T0);
    assert_eq!(backends_of(4), backends([5, 6, 7]));
    let plans = [maglev(1, &[1, 2, 3]), maglev(2, &[1]), maglev(4, &[5, 6, 7])];
    let report = writer.reconcile(plans.clone(), T0);
    assert_eq!((report.writes, report.words, report.problems.len()), (0, 0, 1));

    writer.apply(vec![Change::Remove(port_id(1))], T0);
    let report = writer.reconcile(plans[1..].to_vec(), T0 + GRACE_PERIOD);
    assert_eq!(report.problems, []);
    assert_eq!(writer.fills()[2].used, 1 + table_slots(1) + 3 + table_slots(3));
    assert_eq!(backends_of(4), backends([5, 6, 7]));
}
