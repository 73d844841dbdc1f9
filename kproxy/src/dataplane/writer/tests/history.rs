//! Any history, crashes included, ends with the maps of planning anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Room for the tables of maglev of every step.
const SLOTS: u32 = 1 << 19;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Set(Box<ServicePortPlan>),
    Remove(u8),
    Nodes(BTreeSet<IpAddr>),
    Restart,
    /// Read the maps again, as `kproxy verify --repair` has it done.
    Reread,
    CrashIn(usize),
}

fn any_plan() -> impl Strategy<Value = ServicePortPlan> {
    (
        0u8..6,
        prop::collection::btree_set(0u8..8, 0..6),
        prop::option::of(prop::collection::btree_set(0u8..4, 0..3)),
        0u8..8,
        (
            prop::option::of(1u32..3),
            // Tables take time.
            prop_oneof![15 => prop::sample::select(&Algorithm::ALL[..3]), 1 => Just(Algorithm::Maglev)],
        ),
        any::<bool>(),
        prop::collection::btree_set(8u8..12, 0..3),
        prop::sample::subsequence(vec!["192.0.2.0/24", "10.244.0.0/16", "0.0.0.0/1"], 0..=2),
    )
        .prop_map(|(number, cluster, local, kinds, (affinity, algorithm), drop, others, ranges)| {
            let mut plan = plan(number, cluster);
            plan.serving = serving(others);
            if kinds & 1 != 0 {
                plan = with_node_port(plan, 30_000 + u16::from(number));
            }
            if kinds & 2 != 0 {
                let port = 1000 + u16::from(number);
                plan.frontends.push(frontend(FrontendKind::ExternalIp, ip("192.0.2.1"), port));
            }
            if kinds & 4 != 0 {
                plan.frontends.remove(0);
            }
            if let Some(local) = local {
                let when_empty = if drop { EmptyVerdict::Drop } else { EmptyVerdict::Reject };
                plan.local = Some(BackendSet { backends: backends(local), when_empty });
                for frontend in &mut plan.frontends {
                    frontend.external = Scope::Local;
                }
            }
            plan.affinity_seconds = affinity;
            plan.algorithm = algorithm;
            plan.source_ranges = ranges.into_iter().map(net).collect();
            if let (Some(last), false) = (plan.frontends.last_mut(), plan.source_ranges.is_empty())
            {
                last.sources = Sources::Ranges { node: drop };
            }
            plan
        })
}

fn any_step() -> impl Strategy<Value = Step> {
    let nodes = prop::sample::subsequence(vec!["192.0.2.1", "127.0.0.1", "10.96.0.2"], 0..=3);
    prop_oneof![
        8 => any_plan().prop_map(|plan| Step::Set(Box::new(plan))),
        3 => (0u8..6).prop_map(Step::Remove),
        1 => nodes.prop_map(|nodes| Step::Nodes(nodes.into_iter().map(ip).collect())),
        1 => Just(Step::Restart),
        1 => Just(Step::Reread),
        2 => (0usize..8).prop_map(Step::CrashIn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_any_history_the_maps_equal_those_of_planning_anew(
        steps in prop::collection::vec((any_step(), 0u64..2000), 1..40),
    ) {
        let maps = FakeMaps::new(32, SLOTS, 256);
        let mut writer = Writer::open(maps.clone()).unwrap();
        let mut desired = BTreeMap::new();
        let mut nodes = BTreeSet::new();
        let mut now = T0;
        writer.set_node_addresses(&nodes);
        writer.reconcile([], now);
        for (step, pause) in steps {
            now += Duration::from_millis(pause);
            let mut crashed = false;
            match step {
                Step::Set(plan) => {
                    desired.insert(plan.id.clone(), (*plan).clone());
                    crashed = crashes(|| drop(writer.apply(vec![Change::Set(*plan)], now)));
                }
                Step::Remove(number) => {
                    desired.remove(&port_id(number));
                    let changes = vec![Change::Remove(port_id(number))];
                    crashed = crashes(|| drop(writer.apply(changes, now)));
                }
                Step::Nodes(addresses) => {
                    nodes = addresses;
                    crashed = crashes(|| drop(writer.set_node_addresses(&nodes)));
                }
                Step::CrashIn(calls) => maps.crash_in(Some(calls)),
                Step::Restart => crashed = true,
                Step::Reread => {
                    writer.reread().unwrap();
                    crashed = crashes(|| {
                        writer.set_node_addresses(&nodes);
                        writer.reconcile(desired.values().cloned(), now);
                    });
                }
            }
            if crashed {
                // The clock goes on, but what rested is forgotten with the process.
                now += Duration::from_secs(2);
                writer = Writer::open(maps.reopened()).unwrap();
                writer.set_node_addresses(&nodes);
                let report = writer.reconcile(desired.values().cloned(), now);
                prop_assert!(report.problems.is_empty(), "{:?}", report);
            }
        }
        maps.crash_in(None);

        let anew = FakeMaps::new(32, SLOTS, 256);
        let mut fresh = Writer::open(anew.clone()).unwrap();
        fresh.set_node_addresses(&nodes);
        fresh.reconcile(desired.values().cloned(), now);
        prop_assert_eq!(maps.meaning(), anew.meaning());
        prop_assert_eq!(writer.fills()[0], crate::dataplane::Fill { capacity: 256, ..fresh.fills()[0] });
        prop_assert_eq!(writer.fills()[2].used, fresh.fills()[2].used);

        let plans: Vec<_> = desired.into_values().collect();
        prop_assert_eq!(verified::found(&maps, &plans, &nodes), [""; 0]);
        let report = writer.reconcile(plans, now);
        prop_assert!(report.is_empty(), "a correct node sees no writes: {:?}", report);
    }
}
