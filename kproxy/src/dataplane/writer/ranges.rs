//! Source ranges of service ports. They are there before a frontend that asks for them, and go after
//! it: in between, and when a map refuses a range, fewer may connect, never more.

use ipnet::IpNet;
use kproxy_common::abi::map;

use super::{maps::Maps, problems, state::Writer};
use crate::{
    dataplane::report::Report,
    model::Problem,
    plan::{ServicePortId, ServicePortPlan},
};

/// Effect of a range that the map has refused.
const WITHOUT: &str = "its load-balancer addresses do not answer sources of that range";
/// Effect of a range that the map keeps.
const STILL: &str = "its load-balancer addresses still answer sources of that range";

impl<M: Maps> Writer<M> {
    /// Adds what is missing.
    pub(super) fn add_ranges(&mut self, plan: &ServicePortPlan) -> Vec<Problem> {
        let Some(port) = self.service_ports.get_mut(&plan.id) else { return Vec::new() };
        let mut problems = Vec::new();
        for net in &plan.source_ranges {
            if port.ranges.contains(net) {
                continue;
            }
            match self.maps.set_range(port.id, net) {
                Ok(()) => drop(port.ranges.insert(*net)),
                Err(refusal) => {
                    problems.push(problems::refused(&plan.id, &refusal, map::RANGES, WITHOUT));
                }
            }
        }
        problems
    }

    /// Removes what is no longer wanted. As long as a frontend could not be opened to all, it keeps
    /// its ranges.
    pub(super) fn retire_ranges(&mut self, plan: &ServicePortPlan, report: &mut Report) {
        if plan.source_ranges.is_empty() && self.pending.contains_key(&plan.id) {
            return;
        }
        let problems = self.remove_ranges(&plan.id, &plan.source_ranges);
        if !problems.is_empty() {
            self.postpone(plan.clone(), problems, report);
        }
    }

    /// Removes all ranges of a service port but those to keep.
    pub(super) fn remove_ranges(&mut self, id: &ServicePortId, keep: &[IpNet]) -> Vec<Problem> {
        let Some(port) = self.service_ports.get_mut(id) else { return Vec::new() };
        let mut problems = Vec::new();
        let unwanted: Vec<_> =
            port.ranges.iter().filter(|net| !keep.contains(net)).copied().collect();
        for net in unwanted {
            match self.maps.remove_range(port.id, &net) {
                Ok(()) => {
                    port.ranges.remove(&net);
                    self.has_room = true;
                }
                Err(refusal) => {
                    problems.push(problems::refused(id, &refusal, map::RANGES, STILL));
                }
            }
        }
        problems
    }

    /// Removes ranges that a crash has left, before their id is given out again.
    pub(super) fn clear_stray_ranges(&mut self, report: &mut Report) {
        for (id, net) in std::mem::take(&mut self.stray_ranges) {
            if let Err(refusal) = self.maps.remove_range(id, &net) {
                let (why, remedy) = problems::explain(&refusal, map::RANGES);
                let what = format!("{why}; the source range {net} of no Service stays in the map");
                report.problems.push(Problem::new(format!("service port {id}"), what, remedy));
                self.stray_ranges.push((id, net));
            }
        }
    }
}
