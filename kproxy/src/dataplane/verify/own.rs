//! Whether the maps agree with themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kproxy_common::{
    filter,
    service::{Slot, cluster_index, frontend_flags, service_port_id},
};

use super::{
    finding::{Finding, Kind, endpoint, frontend},
    held::Held,
};
use crate::{
    dataplane::{codec, read::scope_name},
    plan::{Scope, ServicePortId},
};

/// What in the maps contradicts something else there.
pub(crate) fn contradictions(held: &Held) -> Vec<Finding> {
    let mut findings = frontends(held);
    findings.extend(names(held));
    findings.extend(sets(held));
    findings.extend(ranges(held));
    findings.extend(addresses(held));
    findings.extend(bits(held));
    findings.sort();
    findings
}

fn name(held: &Held, id: u32) -> String {
    held.names
        .get(&id)
        .map_or_else(|| format!("service port {id}, which has no name"), |name| name.to_string())
}

/// Every frontend leads to sets of one service port, which are there.
fn frontends(held: &Held) -> Vec<Finding> {
    let wrong = |internal: u32, external: u32| {
        let id = service_port_id(internal);
        if service_port_id(external) != id {
            let [a, b] = [internal, external].map(|index| name(held, service_port_id(index)));
            return Some(format!("leads to {a} from inside, and to {b} from outside"));
        }
        if !held.names.contains_key(&id) {
            return Some(format!("leads to {}", name(held, id)));
        }
        let missing =
            [internal, external].into_iter().find(|index| !held.sets.contains_key(index))?;
        let scope = scope_name(codec::scope_of(missing));
        Some(format!("leads to the {scope} set of {}, which is not there", name(held, id)))
    };
    let entries = held.frontends.iter();
    let found = entries.filter_map(|(key, value)| {
        let wrong = wrong(value.internal, value.external)?;
        Some(Finding::contradicts(Kind::Frontend, frontend(key), wrong))
    });
    found.collect()
}

/// Every name has a set, each set has a name, and no name is there twice.
fn names(held: &Held) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<&ServicePortId, u32> = BTreeMap::new();
    for (id, name) in &held.names {
        if !held.sets.contains_key(&cluster_index(*id)) {
            let wrong = format!("is service port {id}, whose Cluster set is not there");
            findings.push(Finding::contradicts(Kind::Service, name.to_string(), wrong));
        }
        if let Some(first) = seen.insert(name, *id) {
            let wrong = format!("is there twice, as service ports {first} and {id}");
            findings.push(Finding::contradicts(Kind::Service, name.to_string(), wrong));
        }
    }
    let nameless: BTreeSet<u32> = held.sets.keys().map(|index| service_port_id(*index)).collect();
    let nameless = nameless.into_iter().filter(|id| !held.names.contains_key(id));
    findings.extend(nameless.map(|id| {
        Finding::contradicts(Kind::Service, format!("port {id}"), "has backends and no name")
    }));
    findings
}

/// Every set has the slots that it says, of its family, and of no other set.
fn sets(held: &Held) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut runs: Vec<(u32, u32, u32)> = Vec::new();
    for (index, set) in &held.sets {
        let (id, scope) = (service_port_id(*index), codec::scope_of(*index));
        let object = || scope_name(scope).to_owned();
        let contradicts = |object, wrong: String| {
            let finding = Finding::contradicts(Kind::Set, object, wrong);
            match held.names.get(&id) {
                Some(name) => finding.of(name),
                None => finding,
            }
        };
        let word = set.word();
        let said = codec::run_len(word, set.run.first().copied());
        if set.run.len() < said.max(word.count.into()) as usize {
            let (first, slots) = (word.first, held.slots);
            let wrong = format!("has {said} slots from {first} on, of a map of {slots}");
            findings.push(contradicts(object(), wrong));
        }
        if !set.run.is_empty() {
            runs.push((word.first, set.run.len() as u32, *index));
        }
        let Some(name) = held.names.get(&id) else { continue };
        let is_wrong = |slot: &&Slot| {
            let addr = IpAddr::from(slot.addr);
            slot.port.get() == 0
                || addr.is_unspecified()
                || slot.addr.is_v4() != (name.family.number() == 4)
        };
        for slot in set.run.iter().take(word.count.into()).filter(is_wrong) {
            let object = endpoint(slot.addr, slot.port);
            let wrong = format!("is no endpoint of IPv{}", name.family.number());
            findings.push(Finding::contradicts(Kind::Backend, object, wrong).of(name));
        }
        if scope == Scope::Local && held.set(id, Scope::Cluster).is_none() {
            findings.push(contradicts(object(), "is there without the Cluster set".to_owned()));
        }
    }
    runs.sort_unstable();
    for pair in runs.windows(2) {
        let ((first, len, a), (second, _, b)) = (pair[0], pair[1]);
        if first.saturating_add(len) > second {
            let [a, b] = [a, b].map(|index| {
                let scope = scope_name(codec::scope_of(index));
                format!("the {scope} set of {}", name(held, service_port_id(index)))
            });
            let wrong = format!("belongs to {a} and to {b}");
            findings.push(Finding::contradicts(Kind::Set, format!("slot {second}"), wrong));
        }
    }
    findings
}

/// Every source range is of a service port.
fn ranges(held: &Held) -> Vec<Finding> {
    let stray = held.ranges.iter().filter(|(id, _)| !held.names.contains_key(id));
    let finding = |(id, nets): (&u32, &BTreeSet<_>)| {
        let wrong = format!("is of service port {id}, which has no name");
        let of = |net: &ipnet::IpNet| {
            Finding::contradicts(Kind::SourceRange, net.to_string(), wrong.as_str())
        };
        nets.iter().map(of).collect::<Vec<_>>()
    };
    stray.flat_map(finding).collect()
}

/// The addresses that are known as ClusterIPs are those with such frontends.
fn addresses(held: &Held) -> Vec<Finding> {
    let cluster_ips = held.cluster_ips();
    let known =
        held.addresses.iter().filter(|(_, flags)| **flags & frontend_flags::SERVICE_ADDRESS != 0);
    let known: BTreeSet<_> = known.map(|(addr, _)| *addr).collect();
    let differs = cluster_ips.symmetric_difference(&known).map(|addr| {
        let wrong = if known.contains(addr) {
            "is known as a ClusterIP, and no frontend is one there"
        } else {
            "is a ClusterIP, and is not known as one: its other ports are not refused"
        };
        Finding::contradicts(Kind::Address, IpAddr::from(*addr).to_string(), wrong)
    });
    differs.collect()
}

/// Whoever is dialled gets past the address filter.
fn bits(held: &Held) -> Vec<Finding> {
    let is_set = |bit: u32| {
        let (word, mask) = filter::position(bit);
        held.filter.get(word as usize).is_some_and(|word| word & mask != 0)
    };
    let missing = held.frontends.keys().filter_map(|key| {
        let unspecified = key.addr == key.addr.unspecified_of_family();
        let bit = if unspecified {
            filter::bit_of_node_port(key.port, key.proto)
        } else {
            filter::bit(&key.addr)
        };
        (!is_set(bit)).then(|| {
            let wrong = "is a frontend, and the filter lets nobody through to it";
            Finding::contradicts(Kind::Filter, frontend(key), wrong)
        })
    });
    let node_ports = |v4: bool| {
        held.frontends.iter().any(|(key, value)| {
            value.flags & frontend_flags::NODE_PORT != 0 && key.addr.is_v4() == v4
        })
    };
    let node_ports = [node_ports(false), node_ports(true)];
    let nodes = held.addresses.iter().filter(|(addr, flags)| {
        **flags & frontend_flags::NODE_ADDRESS != 0
            && node_ports[usize::from(addr.is_v4())]
            && !is_set(filter::bit(addr))
    });
    let nodes = nodes.map(|(addr, _)| {
        let wrong = "is this node's, and the filter lets nobody through to its NodePorts";
        Finding::contradicts(Kind::Filter, IpAddr::from(*addr).to_string(), wrong)
    });
    missing.chain(nodes).collect()
}
