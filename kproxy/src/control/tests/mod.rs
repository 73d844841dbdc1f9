mod metrics;
mod objects;
mod properties;
mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;

use crate::dataplane;
use crate::model::{Problem, Service, Slice};
use crate::plan::{Change, ServicePortId, ServicePortPlan};
use crate::source::{Event, Parsed, Update, Verdict};

use super::{DataplaneSink, Report};

fn parsed_service(service: Service) -> Parsed<Service> {
    Parsed { key: service.name.clone(), verdict: Verdict::Use(service), problems: Vec::new() }
}

fn parsed_slice(slice: Slice) -> Parsed<Slice> {
    Parsed { key: slice.name.clone(), verdict: Verdict::Use(slice), problems: Vec::new() }
}

fn apply_service(service: Service) -> Event {
    Event::Services(Update::Apply(parsed_service(service)))
}

fn apply_slice(slice: Slice) -> Event {
    Event::Slices(Update::Apply(parsed_slice(slice)))
}

fn all_services(services: impl IntoIterator<Item = Service>) -> Event {
    Event::Services(Update::Reset(services.into_iter().map(parsed_service).collect()))
}

fn all_slices(slices: impl IntoIterator<Item = Slice>) -> Event {
    Event::Slices(Update::Reset(slices.into_iter().map(parsed_slice).collect()))
}

/// What a data path saw and holds.
#[derive(Default)]
struct Held {
    plans: BTreeMap<ServicePortId, ServicePortPlan>,
    addresses: BTreeSet<IpAddr>,
    service_ranges: Vec<IpNet>,
    opted_out_pods: Vec<BTreeSet<IpAddr>>,
    calls: Vec<&'static str>,
    /// Services that the data path has no room for.
    refused: BTreeSet<String>,
    /// When it says that there is, while something is refused.
    room_in: Option<Duration>,
}

impl Held {
    fn apply(&mut self, changes: Vec<Change>) -> Report {
        let mut report = Report::default();
        for change in changes {
            let id = change.id().clone();
            match change {
                Change::Set(plan) if self.refused.contains(&id.name) => {
                    report.room_in = self.room_in;
                    self.plans.remove(&plan.id);
                    report.problems.push(Problem::new(
                        format!("Service {}/{}", id.namespace, id.name),
                        "there is no room",
                        "make room",
                    ));
                }
                Change::Set(plan) => {
                    if self.plans.get(&id) != Some(&plan) {
                        report.writes += 1;
                        self.plans.insert(id, plan);
                    }
                }
                Change::Remove(id) => {
                    report.writes += 1;
                    self.plans.remove(&id);
                }
            }
        }
        report
    }
}

/// A data path in memory.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Held>>);

impl Fake {
    fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn call<T>(&self, name: &'static str, act: impl FnOnce(&mut Held) -> T) -> T {
        self.held(|held| {
            held.calls.push(name);
            act(held)
        })
    }
}

impl DataplaneSink for Fake {
    fn reconcile(&mut self, desired: Vec<ServicePortPlan>) -> Report {
        self.call("reconcile", |held| {
            let ids: BTreeSet<_> = desired.iter().map(|plan| plan.id.clone()).collect();
            held.plans.retain(|id, _| ids.contains(id));
            held.apply(desired.into_iter().map(Change::Set).collect())
        })
    }

    fn reread(&mut self) -> Report {
        self.call("reread", |_| Report::default())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Report {
        self.call("apply", |held| held.apply(changes))
    }

    fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        self.call("addresses", |held| held.addresses = addresses.clone());
        Report::default()
    }

    fn set_service_ranges(&mut self, ranges: &[IpNet]) -> Report {
        self.call("ranges", |held| held.service_ranges = ranges.to_vec());
        Report::default()
    }

    fn set_opted_out_pods(&mut self, pods: Vec<BTreeSet<IpAddr>>) {
        self.call("pods", |held| held.opted_out_pods = pods);
    }

    fn attach(&mut self) -> Result<(), dataplane::Error> {
        self.call("attach", |_| Ok(()))
    }
}
