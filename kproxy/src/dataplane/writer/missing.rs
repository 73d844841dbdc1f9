//! What a pass has found no room for.

use kproxy_common::maglev::table_slots;

use crate::{dataplane::codec, model::Problem, plan::ServicePortPlan};

/// Room that was asked for in a pass and is not there.
#[derive(Default)]
pub(super) struct Missing {
    pub(super) service_ports: u32,
    pub(super) slots: u32,
    pub(super) frontends: u32,
    /// What was said of it.
    pub(super) problems: Vec<Problem>,
}

impl Missing {
    /// All that a service port takes.
    pub(super) fn add(&mut self, plan: &ServicePortPlan) {
        self.service_ports += 1;
        for set in [Some(&plan.cluster), plan.local.as_ref()].into_iter().flatten() {
            self.add_set(set.backends.len(), codec::wants_table(plan, set));
        }
        // Its ClusterIP has an address entry besides.
        self.frontends = self.frontends.saturating_add(plan.frontends.len() as u32 + 1);
    }

    /// The slots of a set.
    pub(super) fn add_set(&mut self, backends: usize, with_table: bool) {
        let backends = backends as u32;
        let table = if with_table { table_slots(backends) } else { 0 };
        self.slots = self.slots.saturating_add(backends).saturating_add(table);
    }
}
