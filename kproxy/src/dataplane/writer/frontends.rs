//! Frontends: what clients dial and the service port that each leads to.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use kproxy_common::{
    abi::map,
    service::{FrontendKey, FrontendValue, service_port_id},
};

use super::{
    maps::{Maps, Refusal},
    problems,
    state::Writer,
};
use crate::{
    dataplane::report::Report,
    model::Problem,
    plan::{Protocol, ServicePortId},
};

/// Wanted frontends of a service port.
pub(super) type WantedFrontends = BTreeMap<FrontendKey, FrontendValue>;

impl<M: Maps> Writer<M> {
    /// Adds and changes the frontends of a service port; takes over those that leave another one.
    pub(super) fn add_frontends(
        &mut self,
        id: &ServicePortId,
        wanted: &WantedFrontends,
        leaving: &mut HashSet<FrontendKey>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, value) in wanted {
            let present = self.frontends.get(key).copied();
            let leaves = leaving.contains(key);
            if present == Some(*value) && !leaves {
                continue;
            }
            let owner = present.map(|value| service_port_id(value.internal));
            let moves = owner.is_some_and(|owner| owner != service_port_id(value.internal));
            if moves && !leaves {
                let owner = owner.and_then(|owner| self.by_id.get(&owner));
                let owner = owner.map_or_else(|| "unknown".to_owned(), ServicePortId::text);
                problems.push(problems::taken(id, &describe(key), &owner));
                continue;
            }
            if let Err(refusal) = self.maps.set_frontend(key, value) {
                if refusal == Refusal::Full {
                    self.missing.frontends = self.missing.frontends.saturating_add(2);
                }
                let effect = format!("{} does not lead to it", describe(key));
                problems.push(problems::refused(id, &refusal, map::FRONTENDS, &effect));
                continue;
            }
            leaving.remove(key);
            if let Some(old) = present {
                self.forget_frontend(key, &old);
            }
            self.frontends.insert(*key, *value);
            self.addresses.add(key, value.flags);
            if let Some(port) = self.service_ports.get_mut(id) {
                port.frontends.push(*key);
            }
        }
        problems
    }

    pub(super) fn remove_frontend(&mut self, key: &FrontendKey, report: &mut Report) {
        let Some(value) = self.frontends.get(key).copied() else { return };
        if let Err(refusal) = self.maps.remove_frontend(key) {
            // Tried again in the next pass; until then its id must lead nowhere else.
            let (why, remedy) = problems::explain(&refusal, map::FRONTENDS);
            let what = format!("{why}; it still leads to a Service that is gone");
            report.problems.push(Problem::new(format!("frontend {}", describe(key)), what, remedy));
            self.stray_frontends.insert(*key);
            return;
        }
        self.forget_frontend(key, &value);
        self.frontends.remove(key);
        self.has_room = true;
    }

    /// Takes a frontend out of the accounts of its address and its owner.
    fn forget_frontend(&mut self, key: &FrontendKey, value: &FrontendValue) {
        self.addresses.remove(key, value.flags);
        let owner = self.by_id.get(&service_port_id(value.internal));
        if let Some(port) = owner.and_then(|owner| self.service_ports.get_mut(owner)) {
            port.frontends.retain(|other| other != key);
        }
    }
}

fn describe(key: &FrontendKey) -> String {
    let protocol = Protocol::from_number(key.proto).map_or("?", Protocol::name);
    let addr = IpAddr::from(key.addr);
    if addr.is_unspecified() {
        return format!("NodePort {} {protocol}", key.port.get());
    }
    format!("{} {protocol}", SocketAddr::new(addr, key.port.get()))
}
