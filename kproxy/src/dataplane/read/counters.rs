//! What the programs have counted, summed over CPUs.

use kproxy_common::{
    abi::map,
    counters::{NO_SERVICE, ServiceCounters},
    drop_reason::DropReason,
    service::service_port_id,
};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{CounterRow, DropRow},
};
use crate::{dataplane::codec, plan::Scope};

impl Pins {
    /// Counters of every set in use, summed over CPUs, sorted by name.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn counters(&self) -> Result<Vec<CounterRow>, ReadError> {
        let mut rows = Vec::new();
        for service in self.services()? {
            let local = service.local.map(|set| (Scope::Local, set));
            for (scope, set) in [(Scope::Cluster, service.cluster)].into_iter().chain(local) {
                let per_cpu =
                    self.counters.get(&set.index, 0).map_err(ReadError::of_map(map::COUNTERS))?;
                let sum = |field: fn(&ServiceCounters) -> u64| per_cpu.iter().map(field).sum();
                rows.push(CounterRow {
                    id: service.id,
                    service: service.service.clone(),
                    set: scope,
                    connections: sum(|counters| counters.connections),
                    packets: sum(|counters| counters.packets),
                    bytes: sum(|counters| counters.bytes),
                    failed: sum(|counters| counters.failed),
                });
            }
        }
        Ok(rows)
    }

    /// Refusals and drops by service and reason, summed over CPUs, sorted by name and reason.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn drops(&self) -> Result<Vec<DropRow>, ReadError> {
        let names = self.names()?;
        let mut rows = Vec::new();
        for element in self.drops.iter() {
            let (key, per_cpu) = element.map_err(ReadError::of_map(map::DROPS))?;
            let id = (key.service != NO_SERVICE).then(|| service_port_id(key.service));
            rows.push(DropRow {
                id,
                service: id.and_then(|id| names.get(&id).cloned()),
                set: id.map(|_| codec::scope_of(key.service)),
                reason_number: key.reason,
                reason: DropReason::from_number(key.reason),
                count: per_cpu.iter().sum(),
            });
        }
        rows.sort_by(|a, b| {
            (&a.service, a.id, a.reason_number).cmp(&(&b.service, b.id, b.reason_number))
        });
        Ok(rows)
    }
}
