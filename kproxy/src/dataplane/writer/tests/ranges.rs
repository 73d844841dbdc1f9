//! Source ranges: what is in the map with which frontend, at any moment.

use super::*;
use crate::dataplane::writer::fake::Meaning;

/// With a load-balancer address that is open to these ranges only.
fn with_ranges(mut plan: ServicePortPlan, ranges: &[&str]) -> ServicePortPlan {
    let mut vip = frontend(FrontendKind::LoadBalancer, ip("203.0.113.1"), 80);
    vip.sources = Sources::Ranges { node: false };
    plan.frontends.push(vip);
    plan.source_ranges = ranges.iter().map(|text| net(text)).collect();
    plan
}

#[test]
fn ranges_come_before_their_frontend_and_go_after_it() {
    let plans = [
        plan(1, [1]),
        with_ranges(plan(1, [1]), &["192.0.2.0/24"]),
        with_ranges(plan(1, [1]), &["10.244.0.0/16", "192.0.2.0/25"]),
        plan(1, [1]),
    ];
    // Wherever a step breaks off, the frontend is gone, open as before, or has all ranges of the
    // plan before or after.
    for step in plans.windows(2) {
        let [before, after] = step else { unreachable!("windows of two") };
        for calls in 0..6 {
            let maps = FakeMaps::new(16, 64, 64);
            let mut writer = writer(&maps);
            writer.reconcile([before.clone()], T0);
            maps.crash_in(Some(calls));
            let broke = crashes(|| drop(writer.apply(vec![Change::Set(after.clone())], T0)));
            maps.crash_in(None);
            let meaning = maps.meaning();
            let held: BTreeSet<_> = meaning.ranges.iter().map(|(_, net)| *net).collect();
            let restricted = meaning
                .frontends
                .values()
                .any(|(.., flags)| flags & frontend_flags::SOURCE_RANGES != 0);
            let holds = |plan: &ServicePortPlan| {
                !plan.source_ranges.is_empty()
                    && plan.source_ranges.iter().all(|net| held.contains(net))
            };
            assert!(!restricted || holds(before) || holds(after), "{held:?} after {calls} calls");
            if !broke {
                assert_eq!(held, after.source_ranges.iter().copied().collect());
            }
            // The next run finds what is left and puts it right.
            let maps = maps.reopened();
            let mut writer = Writer::open(maps.clone()).unwrap();
            assert!(writer.reconcile([after.clone()], T0).problems.is_empty());
            let anew = FakeMaps::new(16, 64, 64);
            self::writer(&anew).reconcile([after.clone()], T0);
            assert_eq!(maps.meaning(), anew.meaning());
        }
    }
}

#[test]
fn a_full_range_map_closes_and_is_reported() {
    let maps = FakeMaps::new(16, 64, 64);
    let mut writer = writer(&maps);
    let many: Vec<String> = (0..17).map(|i| format!("10.{i}.0.0/16")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let report = writer.reconcile([with_ranges(plan(1, [1]), &many)], T0);
    let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
    assert!(problem.what.contains("KP_RANGES is full"), "{problem}");
    assert!(problem.remedy.contains("--max-ranges"), "{problem}");
    let meaning = maps.meaning();
    assert_eq!((meaning.ranges.len(), meaning.frontends.len()), (16, 2));
    // With room again it is put right.
    let report = writer.apply(vec![Change::Set(with_ranges(plan(1, [1]), &many[..3]))], T0);
    assert_eq!(report.problems, []);
    assert_eq!(maps.meaning().ranges.len(), 3);
    writer.apply(vec![Change::Remove(port_id(1))], T0);
    assert_eq!(maps.meaning(), Meaning::default());
}
