//! What the maps held when they were read, and the rows made of it. No kernel here: the tests
//! fill a [`Snapshot`] by hand.

mod flows;
mod tables;

use std::collections::BTreeMap;
use std::net::IpAddr;

use kproxy_common::counters::{DropKey, ServiceCounters};
use kproxy_common::flow::{FlowKey, FlowValue};
use kproxy_common::net::proto;
use kproxy_common::service::{
    FrontendKey, FrontendValue, Name, Service, Slot, Word, empty_verdict, frontend_flags,
};

use super::rows::{Scope, ServicePort, WhenEmpty};

/// One entry of the service map with its run of slots.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// The entry.
    pub entry: Service,
    /// Its backends; empty if only the counts were asked for.
    pub slots: Vec<Slot>,
}

/// Contents of the maps. Tables that were not asked for are empty.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Service port id → name.
    pub names: BTreeMap<u32, Name>,
    /// Frontends and address entries.
    pub frontends: Vec<(FrontendKey, FrontendValue)>,
    /// Service index → set, for entries in use.
    pub sets: BTreeMap<u32, Set>,
    /// Both directions of the flows.
    pub flows: Vec<(FlowKey, FlowValue)>,
    /// Service index → counters of all CPUs added up.
    pub counters: BTreeMap<u32, ServiceCounters>,
    /// Drop counters of all CPUs added up.
    pub drops: Vec<(DropKey, u64)>,
    /// CLOCK_MONOTONIC in seconds when the flows were read.
    pub now: u32,
}

impl Snapshot {
    /// Addresses on which NodePorts answer.
    pub fn node_addresses(&self) -> Vec<IpAddr> {
        let of_node = |flags| flags & frontend_flags::NODE_ADDRESS != 0;
        let entries = self.frontends.iter().filter(|(key, _)| key.is_address());
        entries.filter(|(_, v)| of_node(v.flags)).map(|(key, _)| key.addr.into()).collect()
    }

    /// The service port with this id; without a name if the maps hold none.
    fn service_port(&self, id: u32) -> ServicePort {
        let Some(name) = self.names.get(&id) else {
            return ServicePort {
                namespace: String::new(),
                service: String::new(),
                port_name: String::new(),
                protocol: "?".to_owned(),
                family: "?",
                service_port_id: id,
            };
        };
        let end = name.text.iter().position(|byte| *byte == 0).unwrap_or(name.text.len());
        let text = String::from_utf8_lossy(&name.text[..end]);
        let (namespace, rest) = text.split_once('/').unwrap_or(("", &text));
        let (service, port_name) = rest.split_once(':').unwrap_or((rest, ""));
        ServicePort {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port_name: port_name.to_owned(),
            protocol: protocol(name.proto),
            family: match name.family {
                4 => "IPv4",
                6 => "IPv6",
                _ => "?",
            },
            service_port_id: id,
        }
    }

    /// Word of the set with this index; an empty one if it is not in use.
    fn word(&self, index: u32) -> Word {
        self.sets.get(&index).map_or_else(Word::default, |set| Word::unpack(set.entry.word))
    }
}

/// `TCP`, `UDP`, `SCTP`, or the number in digits.
fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "TCP".to_owned(),
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        other => other.to_string(),
    }
}

/// Even indexes are cluster-wide sets, odd ones local.
const fn scope(index: u32) -> Scope {
    if index.is_multiple_of(2) { Scope::Cluster } else { Scope::Local }
}

/// What an empty set does.
const fn when_empty(word: Word) -> WhenEmpty {
    if word.count == 0 && word.first == empty_verdict::DROP {
        WhenEmpty::Drop
    } else {
        WhenEmpty::Refuse
    }
}

#[cfg(test)]
pub(super) mod sample;
