//! The slots of a set against those that are planned.

use std::collections::BTreeMap;

use kproxy_common::{
    net::{Addr, Port},
    service::{MAX_EXTRA, Slot, slot_flags},
};

use super::{
    finding::{Finding, Kind, endpoint},
    held::HeldSet,
};
use crate::{
    dataplane::{codec, read::scope_name},
    plan::{BackendSet, Scope, ServicePortPlan},
};

/// A run by its parts.
struct Parts<'a> {
    backends: &'a [Slot],
    keeping: &'a [Slot],
    table: &'a [Slot],
}

impl<'a> Parts<'a> {
    fn of(run: &'a [Slot], count: usize) -> Self {
        let (backends, rest) = run.split_at(run.len().min(count));
        let extra = backends.first().map_or(0, |first| first.extra.min(MAX_EXTRA)) as usize;
        let (keeping, table) = rest.split_at(rest.len().min(extra));
        Self { backends, keeping, table }
    }
}

/// How the run of a set differs from the planned one.
pub(super) fn differences(
    plan: &ServicePortPlan,
    scope: Scope,
    set: &BackendSet,
    held: &HeldSet,
) -> Vec<Finding> {
    let mut wanted = codec::encode_run(plan, scope, set);
    if codec::wants_table(plan, set) {
        codec::add_table(&mut wanted, set);
    }
    let count = usize::from(held.word().count);
    if wanted == held.run && set.backends.len() == count {
        return Vec::new();
    }
    let (wanted, there) = (Parts::of(&wanted, set.backends.len()), Parts::of(&held.run, count));
    let name = scope_name(scope);
    let mut findings = compare(wanted.backends, there.backends, |slot| {
        let place = if slot.flags & slot_flags::LOCAL == 0 { "" } else { ", on this node" };
        format!("in the {name} set{place}")
    });
    findings.extend(compare(wanted.keeping, there.keeping, |_| {
        format!("beside the {name} set, for flows that it has")
    }));
    let table = |part: &Parts<'_>| (!part.table.is_empty()).then(|| "a lookup table".to_owned());
    let (planned, kernel) = (table(&wanted), table(&there));
    if planned != kernel {
        findings.push(Finding::differs(Kind::Set, name, planned, kernel));
    } else if wanted.table != there.table && findings.is_empty() {
        let kernel = Some("another one".to_owned());
        findings.push(Finding::differs(Kind::Set, name, planned, kernel));
    }
    if findings.is_empty() {
        let what = |slots: &[Slot]| {
            let all: Vec<_> = slots.iter().map(|slot| endpoint(slot.addr, slot.port)).collect();
            Some(format!("the order {}", all.join(" ")))
        };
        let (planned, kernel) = (what(wanted.backends), what(there.backends));
        findings.push(Finding::differs(Kind::Set, name, planned, kernel));
    }
    findings.into_iter().map(|finding| finding.of(&plan.id)).collect()
}

/// Endpoints that only one of both has, or has otherwise.
fn compare(wanted: &[Slot], there: &[Slot], text: impl Fn(&Slot) -> String) -> Vec<Finding> {
    let by_endpoint = |slots: &[Slot]| -> BTreeMap<(Addr, Port), Slot> {
        slots.iter().map(|slot| ((slot.addr, slot.port), codec::inner_slot(*slot))).collect()
    };
    let (wanted, there) = (by_endpoint(wanted), by_endpoint(there));
    let new = there.keys().filter(|key| !wanted.contains_key(*key));
    wanted
        .keys()
        .chain(new)
        .filter(|key| wanted.get(*key) != there.get(*key))
        .map(|key| {
            let text = |slots: &BTreeMap<_, Slot>| slots.get(key).map(&text);
            let (planned, kernel) = (text(&wanted), text(&there));
            Finding::differs(Kind::Backend, endpoint(key.0, key.1), planned, kernel)
        })
        .collect()
}
