//! The map of slots is full: who waits, who gives way, and that what is gone goes.

use kproxy_common::service::Word;

use super::*;
use crate::dataplane::{report::Fill, settings::Sizes, writer::allocator::GRACE_PERIOD};

fn in_use(maps: &FakeMaps, number: u8) -> Vec<Backend> {
    maps.meaning().ports[&port_id(number)][0].as_ref().unwrap().backends.clone()
}

fn word(maps: &FakeMaps, number: u8) -> Word {
    let index = codec::index_of(maps.id_of(&port_id(number)).unwrap(), Scope::Cluster);
    codec::word_of(&maps.arrays.services.get(index).unwrap())
}

#[test]
fn an_endpoint_that_is_gone_is_taken_out_of_a_full_map() {
    for (left, at_once, later) in [
        (vec![2, 3, 4], vec![2, 3, 4], vec![2, 3, 4]),
        (vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3]),
        (vec![1, 3, 4], vec![3, 4], vec![1, 3, 4]),
        (vec![1, 2, 4], vec![1, 2], vec![1, 2, 4]),
        (vec![2], vec![2], vec![2]),
        // The new one waits, not the one beside the gap.
        (vec![1, 3, 4, 9], vec![3, 4], vec![1, 3, 4]),
        // Nothing of the old set serves any more, and nothing new fits until that has rested.
        (vec![5, 6], vec![], vec![5, 6]),
        (vec![], vec![], vec![]),
        // What is only new waits as long as nothing is freed.
        (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4], vec![1, 2, 3, 4]),
    ] {
        let maps = FakeMaps::new(16, 8, 64);
        let mut writer = writer(&maps);
        let full = [plan(1, 1..=4), plan(2, [21, 22, 23, 24])];
        assert_eq!(writer.reconcile(full, T0).problems, []);
        let report = writer.apply(vec![Change::Set(plan(1, left.iter().copied()))], T0);
        assert_eq!(in_use(&maps, 1), backends(at_once.clone()), "{left:?}");
        assert_eq!(report.problems.is_empty(), left == at_once, "{left:?}: {report:?}");
        assert_eq!(report.writes, 0);
        let waits_for_it = left != at_once && left != [1, 2, 3, 4, 5];
        assert_eq!(report.room_in, waits_for_it.then_some(GRACE_PERIOD), "{left:?}");

        // Trying again changes nothing, and a restart finds it so.
        let before = word(&maps, 1);
        writer.apply(vec![Change::Set(plan(1, left.iter().copied()))], T0);
        assert_eq!(word(&maps, 1), before, "{left:?}");
        writer.apply(vec![], T0 + GRACE_PERIOD);
        assert_eq!(in_use(&maps, 1), backends(later.clone()), "{left:?}");
        assert_eq!(in_use(&maps, 2), backends(21..=24));
        assert_eq!(writer.fills()[2].used as usize, 4 + later.len());
        let mut again = Writer::open(maps.reopened()).unwrap();
        let plans = [plan(1, later), plan(2, 21..=24)];
        assert!(again.reconcile(plans, T0).is_empty(), "{left:?}");
    }
}

#[test]
fn sets_that_do_not_grow_find_room_that_others_are_not_given() {
    let maps = FakeMaps::new(16, 32, 64);
    let mut writer = writer(&maps);
    assert_eq!(writer.reconcile([plan(1, 1..=15), plan(2, 1..=15)], T0).problems.len(), 0);
    // Two of 32 are left for those that are there.
    assert_eq!(writer.apply(vec![Change::Set(plan(4, [1]))], T0).problems.len(), 1);
    assert!(!maps.meaning().ports.contains_key(&port_id(4)));
    writer.apply(vec![Change::Set(plan(1, [3, 9]))], T0);
    assert_eq!(in_use(&maps, 1), backends([3, 9]), "in one step");
    assert!(writer.apply(vec![], T0 + GRACE_PERIOD).problems.is_empty());
    assert_eq!(in_use(&maps, 4), backends([1]));
}

#[test]
fn extra_slots_of_udp_go_with_the_part_that_does_not_serve() {
    let maps = FakeMaps::new(16, 6, 64);
    let mut writer = writer(&maps);
    let udp = |numbers: &[u8], others: &[u8]| ServicePortPlan {
        serving: serving(others.iter().copied()),
        ..plan(3, numbers.iter().copied())
    };
    assert_eq!(writer.reconcile([udp(&[1, 2, 3], &[8]), plan(1, [5, 6])], T0).problems, []);
    writer.apply(vec![Change::Set(udp(&[1, 3], &[8]))], T0);
    assert_eq!((in_use(&maps, 3), word(&maps, 3).count), (backends([1]), 1));
    let index = codec::index_of(maps.id_of(&port_id(3)).unwrap(), Scope::Cluster);
    let serves = |writer: &Writer<FakeMaps>, number| {
        let slot = codec::encode_slot(&backends([number])[0]);
        writer.serves(index, slot.addr, slot.port)
    };
    assert_eq!([1, 2, 3, 8].map(|n| serves(&writer, n)), [true, false, true, true]);
    assert!(writer.apply(vec![], T0 + GRACE_PERIOD).problems.is_empty());
    assert_eq!((in_use(&maps, 3), writer.fills()[2].used), (backends([1, 3]), 5));
}

#[test]
fn tables_give_way_before_a_service_is_not_served() {
    let maps = FakeMaps::new(1024, 1 << 14, 1024);
    let mut writer = writer(&maps);
    let maglev = |number: u8, count: u8| ServicePortPlan {
        algorithm: Algorithm::Maglev,
        ..plan(number, 1..=count)
    };
    let tables = |maps: &FakeMaps| {
        let first = (0..200).filter_map(|n| maps.id_of(&port_id(n)).map(|_| word(maps, n).first));
        let first = first.filter_map(|first| maps.arrays.slots.get(first));
        first.filter(|slot| slot.flags & kproxy_common::service::slot_flags::TABLE != 0).count()
    };
    // Five of 2,048 and more fit into three quarters.
    let report = writer.reconcile((0..100).map(|n| maglev(n, 30)), T0);
    assert_eq!((tables(&maps), report.problems.len()), (5, 95));
    assert!(report.problems.iter().all(|problem| problem.what.contains("no room for the table")));
    assert_eq!(maps.meaning().ports.len(), 100, "all are served");

    // Backends need what the tables have: a second later nobody waits.
    let many: Vec<_> = (100..200).map(|n| Change::Set(plan(n, 1..=80))).collect();
    let report = writer.apply(many, T0);
    assert!(report.problems.iter().any(|problem| problem.what.contains("it is not served")));
    let mut now = T0;
    for _ in 0..10 {
        now += GRACE_PERIOD;
        writer.apply(vec![], now);
    }
    assert_eq!(maps.meaning().ports.len(), 200);
    assert!(tables(&maps) < 5);
    let mut again = Writer::open(maps.reopened()).unwrap();
    assert_eq!(again.fills()[2].used, writer.fills()[2].used);
    // Everything again writes nothing, and says who goes without.
    let plans: Vec<_> =
        (0..100).map(|n| maglev(n, 30)).chain((100..200).map(|n| plan(n, 1..=80))).collect();
    let report = again.reconcile(plans, now);
    assert_eq!((report.writes, report.words), (0, 0));
    assert_eq!(report.problems.len(), 100 - tables(&maps));
}

#[test]
fn a_thousand_maglev_services_and_more_are_served_where_tables_of_a_third_fit() {
    let maps = FakeMaps::new(65_536, 1 << 20, 262_144);
    let mut writer = writer(&maps);
    let maglev = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut plan = ServicePortPlan { algorithm: Algorithm::Maglev, ..plan(1, [1, 2, 3]) };
        plan.id.name = format!("svc-{number}");
        plan.frontends[0].addr = IpAddr::from([10, 96, high, low]);
        plan
    };
    let report = writer.reconcile((0..1100).map(maglev), T0);
    assert_eq!(writer.fills()[1].used, 2200);
    assert_eq!(report.problems.len(), 1100 - 383, "those without a table");
    assert!(report.problems.iter().all(|problem| problem.what.contains("by round-robin")));
}

#[test]
fn what_finds_no_room_asks_for_larger_maps_in_one_step() {
    let maps = FakeMaps::new(16, 32, 16);
    let mut writer = writer(&maps);
    let most = Sizes { services: 1024, slots: 65_536, frontends: 1024 };
    writer.grow_to(most);
    let plans = || (0..100).map(|number| plan(number, [1, 2, 3]));
    assert!(writer.reconcile(plans().take(5), T0).problems.is_empty());
    assert_eq!(writer.sizes_wanted(), None, "all fits");
    let report = writer.reconcile(plans(), T0);
    assert!(!report.problems.is_empty());
    let sizes = writer.sizes_wanted().unwrap();
    let larger = maps.larger(sizes.services, sizes.slots, sizes.frontends);
    writer.move_to(larger.clone());
    // What was said of those that wait is said anew.
    let waited = writer.take_waiting();
    assert!(report.problems.iter().all(|problem| waited.contains(problem)));
    assert_eq!(writer.apply(Vec::new(), T0).problems, []);
    assert_eq!(writer.sizes_wanted(), None);
    assert_eq!(writer.fills()[1], Fill { used: 200, capacity: sizes.services });
    let fresh = FakeMaps::new(512, 4096, 512);
    Writer::open(fresh.clone()).unwrap().reconcile(plans(), T0);
    assert_eq!(larger.meaning(), fresh.meaning());
    // A restarted daemon has nothing to do.
    let mut again = Writer::open(larger.reopened()).unwrap();
    let report = again.reconcile(plans(), T0);
    assert_eq!((report.writes, report.words, report.problems), (0, 0, vec![]));
}

#[test]
fn tables_ask_for_larger_maps_before_anybody_goes_without() {
    let maps = FakeMaps::new(1024, 4096, 1024);
    let mut writer = writer(&maps);
    writer.grow_to(Sizes { services: 1024, slots: 1 << 20, frontends: 1024 });
    let maglev = |n| ServicePortPlan { algorithm: Algorithm::Maglev, ..plan(n, [1, 2, 3]) };
    let report = writer.reconcile((0..20).map(maglev), T0);
    let lacking = report.problems.len();
    assert!(lacking > 0);
    let sizes = writer.sizes_wanted().unwrap();
    writer.move_to(maps.larger(sizes.services, sizes.slots, sizes.frontends));
    assert_eq!(writer.apply(Vec::new(), T0).problems, []);
    assert_eq!(writer.sizes_wanted(), None);
}

mod histories {
    use proptest::prelude::*;

    use super::*;

    /// What a set gives out, without a look at all else.
    fn serving_of(maps: &FakeMaps, number: u8) -> Option<Vec<Backend>> {
        maps.id_of(&port_id(number))?;
        let word = word(maps, number);
        let slots = (word.first..).take(word.count.into());
        Some(slots.map(|n| codec::decode_slot(&maps.arrays.slots.get(n).unwrap())).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// However full: what serves is wanted, and what fits is served once the old runs have rested.
        #[test]
        fn nothing_that_is_gone_serves_and_what_fits_serves_in_the_end(
            steps in prop::collection::vec(
                (0u8..4, prop::collection::btree_set(0u8..9, 0..9), 0u64..2500, prop::bool::weighted(0.1)),
                1..60,
            ),
        ) {
            let maps = FakeMaps::new(16, 20, 64);
            let mut writer = Writer::open(maps.clone()).unwrap();
            let mut desired = std::collections::BTreeMap::new();
            let mut now = T0;
            for (number, numbers, pause, restart) in steps {
                now += Duration::from_millis(pause);
                if restart {
                    now += GRACE_PERIOD;
                    writer = Writer::open(maps.reopened()).unwrap();
                    writer.reconcile(desired.values().cloned(), now);
                }
                let wanted = plan(number, numbers);
                desired.insert(number, wanted.clone());
                let report = writer.apply(vec![Change::Set(wanted)], now);
                for (other, wanted) in &desired {
                    let Some(serving) = serving_of(&maps, *other) else { continue };
                    prop_assert!(serving.iter().all(|b| wanted.cluster.backends.contains(b)));
                    prop_assert!(serving.is_sorted());
                    let complete = serving == wanted.cluster.backends;
                    let said = report.problems.iter().any(|p| p.object.ends_with(&wanted.id.name));
                    prop_assert!(*other != number || complete != said, "{:?}", report);
                }
            }
            maps.meaning();
            // Everything shrinks to what fits in any order: all of it serves.
            let small: Vec<_> = desired.keys().map(|number| plan(*number, [1, 2])).collect();
            for _ in 0..4 {
                now += GRACE_PERIOD;
                writer.reconcile(small.clone(), now);
            }
            prop_assert!(writer.reconcile(small, now).is_empty());
            prop_assert_eq!(writer.fills()[2].used as usize, desired.len() * 2);
        }
    }
}
