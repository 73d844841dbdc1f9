//! Between the plan's words and the layouts of the maps. The only decoder and encoder of each.

use std::net::IpAddr;

use ipnet::IpNet;
use kproxy_common::{
    config::{Range, SERVICE_RANGES},
    maglev::{PER_SLOT, pack, table_slots},
    net::{Addr, Port},
    netns::netns_verdict,
    ranges::{self, RangeData},
    service::{
        FrontendKey, FrontendValue, MAX_EXTRA, NAME_LEN, Name, Service, Slot, Word, cluster_index,
        empty_verdict, frontend_flags, local_index, service_flags, slot_flags,
    },
};

use crate::plan::{
    Algorithm, Backend, BackendSet, EmptyVerdict, Family, Frontend, FrontendKind, Protocol, Scope,
    ServicePortId, ServicePortPlan, SocketVerdict, SocketVerdicts, Sources, maglev_table,
};

/// Name of a service port; `None` when it does not fit (no valid Kubernetes name is that long).
pub(crate) fn encode_name(id: &ServicePortId) -> Option<Name> {
    let text = id.text();
    let mut name = Name {
        text: [0; NAME_LEN],
        proto: id.protocol.number(),
        family: id.family.number(),
        pad: [0; 2],
    };
    name.text.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    (decode_name(&name).as_ref() == Some(id)).then_some(name)
}

/// Reads a name; `None` for one that kproxy never writes.
pub(crate) fn decode_name(name: &Name) -> Option<ServicePortId> {
    let end = name.text.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
    let text = std::str::from_utf8(&name.text[..end]).ok()?;
    let (namespace, rest) = text.split_once('/')?;
    let (service, port) = rest.split_once(':').unwrap_or((rest, ""));
    Some(ServicePortId {
        namespace: namespace.to_owned(),
        name: service.to_owned(),
        port: port.to_owned(),
        protocol: Protocol::from_number(name.proto)?,
        family: match name.family {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        },
    })
}

/// Ranges of ClusterIPs, as many of each family as fit.
pub(crate) fn encode_service_ranges(ranges: &[IpNet]) -> [[Range; SERVICE_RANGES]; 2] {
    [Family::V4, Family::V6].map(|family| {
        let mut encoded = [Range::default(); SERVICE_RANGES];
        let of_family = ranges.iter().filter(|range| Family::of(&range.addr()) == family);
        for (place, range) in encoded.iter_mut().zip(of_family) {
            *place = Range::new(range.network(), range.prefix_len());
        }
        encoded
    })
}

/// A backend as a slot.
pub(crate) fn encode_slot(backend: &Backend) -> Slot {
    Slot {
        addr: Addr::from(backend.addr),
        port: Port::new(backend.port),
        flags: if backend.local { slot_flags::LOCAL } else { 0 },
        extra: 0,
    }
}

/// Flags of a set that is in use.
pub(crate) const fn encode_flags(algorithm: Algorithm) -> u32 {
    let algorithm = match algorithm {
        Algorithm::RoundRobin => 0,
        Algorithm::Random => service_flags::RANDOM,
        Algorithm::LeastConnections => service_flags::LEAST_CONNECTIONS,
        Algorithm::Maglev => service_flags::MAGLEV,
    };
    service_flags::IN_USE | algorithm
}

/// How a set with these flags picks.
pub(crate) fn decode_algorithm(flags: u32) -> Algorithm {
    let is = |algorithm: &Algorithm| encode_flags(*algorithm) == flags | service_flags::IN_USE;
    Algorithm::ALL.into_iter().find(is).unwrap_or_default()
}

/// Length of the run that a word leads to; `first` is its first slot.
pub(crate) fn run_len(word: Word, first: Option<Slot>) -> u32 {
    let Some(first) = first.filter(|_| word.count > 0) else { return 0 };
    let count = u32::from(word.count);
    let table = if first.flags & slot_flags::TABLE == 0 { 0 } else { table_slots(count) };
    count + first.extra.min(MAX_EXTRA) + table
}

/// Takes the lookup table off a run of so many backends, so that it needs less room. Whether it had
/// one.
pub(crate) fn drop_table(run: &mut Vec<Slot>, backends: usize) -> bool {
    let Some(first) = run.first_mut().filter(|first| first.flags & slot_flags::TABLE != 0) else {
        return false;
    };
    first.flags &= !slot_flags::TABLE;
    let len = backends + first.extra as usize;
    run.truncate(len);
    true
}

/// The run of a set: its backends, then UDP endpoints that it leaves out and that serve all the
/// same, for sockets that are there already (CT-05). Beyond [`MAX_EXTRA`] they are left out here;
/// an empty set has no run and so none of them. Behind all of them the lookup table of a maglev set.
pub(crate) fn encode_run(plan: &ServicePortPlan, scope: Scope, set: &BackendSet) -> Vec<Slot> {
    let mut run: Vec<Slot> = set.backends.iter().map(encode_slot).collect();
    let Some(first) = run.first().copied() else { return run };
    if plan.id.protocol == Protocol::Udp {
        let serving = plan.serving.iter().map(|(addr, port)| Backend {
            addr: *addr,
            port: *port,
            local: false,
        });
        let other = match scope {
            Scope::Cluster => plan.local.as_ref(),
            Scope::Local => Some(&plan.cluster),
        };
        let other = other.into_iter().flat_map(|set| set.backends.iter().copied());
        let extra = serving.chain(other.filter(|backend| !set.backends.contains(backend)));
        run.extend(extra.take(MAX_EXTRA as usize).map(|backend| encode_slot(&backend)));
        run[0] = Slot { extra: (run.len() - set.backends.len()) as u32, ..first };
    }
    if plan.algorithm == Algorithm::Maglev && set.backends.len() <= Word::MAX_BACKENDS {
        run[0].flags |= slot_flags::TABLE;
        run.extend(maglev_table(&set.backends).chunks(PER_SLOT as usize).map(pack));
    }
    run
}

/// Backends in no set that keep their UDP flows.
pub(crate) fn encode_serving(plan: &ServicePortPlan) -> Box<[(Addr, Port)]> {
    plan.serving.iter().map(|(addr, port)| (Addr::from(*addr), Port::new(*port))).collect()
}

/// A slot as a backend.
pub(crate) fn decode_slot(slot: &Slot) -> Backend {
    Backend {
        addr: IpAddr::from(slot.addr),
        port: slot.port.get(),
        local: slot.flags & slot_flags::LOCAL != 0,
    }
}

/// First-slot field of an empty set's word.
pub(crate) const fn encode_verdict(verdict: EmptyVerdict) -> u32 {
    match verdict {
        EmptyVerdict::Reject => empty_verdict::REJECT,
        EmptyVerdict::Drop => empty_verdict::DROP,
    }
}

/// What an empty set's word says; every unknown number refuses, as the programs do.
pub(crate) const fn decode_verdict(first: u32) -> EmptyVerdict {
    match first {
        empty_verdict::DROP => EmptyVerdict::Drop,
        _ => EmptyVerdict::Reject,
    }
}

/// What is to become of the sockets of a network namespace.
pub(crate) const fn encode_socket_verdict(verdict: SocketVerdict) -> u32 {
    match verdict {
        SocketVerdict::Served => netns_verdict::SERVED,
        SocketVerdict::OptedOut => netns_verdict::OPTED_OUT,
        SocketVerdict::Undecided => netns_verdict::UNDECIDED,
    }
}

/// The verdict on each network namespace, by its cookie. Numbers that kproxy never writes are left
/// out.
pub(crate) fn decode_socket_verdicts(
    entries: impl IntoIterator<Item = (u64, u32)>,
) -> SocketVerdicts {
    let verdict = |number| match number {
        netns_verdict::SERVED => Some(SocketVerdict::Served),
        netns_verdict::OPTED_OUT => Some(SocketVerdict::OptedOut),
        netns_verdict::UNDECIDED => Some(SocketVerdict::Undecided),
        _ => None,
    };
    entries.into_iter().filter_map(|(cookie, number)| Some((cookie, verdict(number)?))).collect()
}

/// Service index of a set of service port `id`.
pub(crate) const fn index_of(id: u32, scope: Scope) -> u32 {
    match scope {
        Scope::Cluster => cluster_index(id),
        Scope::Local => local_index(id),
    }
}

/// Which set of its service port an index is.
pub(crate) const fn scope_of(index: u32) -> Scope {
    if index.is_multiple_of(2) { Scope::Cluster } else { Scope::Local }
}

/// Flag of a frontend kind.
pub(crate) const fn kind_flag(kind: FrontendKind) -> u32 {
    match kind {
        FrontendKind::ClusterIp => frontend_flags::CLUSTER_IP,
        FrontendKind::NodePort => frontend_flags::NODE_PORT,
        FrontendKind::ExternalIp => frontend_flags::EXTERNAL_IP,
        FrontendKind::LoadBalancer => frontend_flags::LOAD_BALANCER,
    }
}

/// Flags that say who may dial a frontend.
const fn source_flags(sources: Sources) -> u32 {
    match sources {
        Sources::All => 0,
        Sources::Ranges { node: false } => frontend_flags::SOURCE_RANGES,
        Sources::Ranges { node: true } => {
            frontend_flags::SOURCE_RANGES | frontend_flags::NODE_ALLOWED
        }
    }
}

/// Who may dial a frontend, by its flags.
pub(crate) const fn sources_of(flags: u32) -> Sources {
    if flags & frontend_flags::SOURCE_RANGES == 0 {
        return Sources::All;
    }
    Sources::Ranges { node: flags & frontend_flags::NODE_ALLOWED != 0 }
}

/// Prefix length and data of a source range of service port `id`.
pub(crate) fn encode_range(id: u32, net: &IpNet) -> (u32, RangeData) {
    let data = RangeData { service_port: id, addr: Addr::from(net.network()) };
    (ranges::prefix_len(&net.network(), net.prefix_len()), data)
}

/// Service port and source range; `None` for what kproxy never writes.
pub(crate) fn decode_range(prefix_len: u32, data: &RangeData) -> Option<(u32, IpNet)> {
    let ip = IpAddr::from(data.addr);
    let len = prefix_len.checked_sub(ranges::prefix_len(&ip, 0))?;
    Some((data.service_port, IpNet::new(ip, u8::try_from(len).ok()?).ok()?))
}

/// Kinds among a frontend's flags.
pub(crate) fn kinds_of(flags: u32) -> Vec<FrontendKind> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
    [ClusterIp, NodePort, ExternalIp, LoadBalancer]
        .into_iter()
        .filter(|kind| flags & kind_flag(*kind) != 0)
        .collect()
}

/// Key and value of a frontend of service port `id`.
pub(crate) fn encode_frontend(
    frontend: &Frontend,
    protocol: Protocol,
    id: u32,
) -> (FrontendKey, FrontendValue) {
    let addr = Addr::from(frontend.addr);
    (
        FrontendKey::new(addr, Port::new(frontend.port), protocol.number()),
        FrontendValue {
            internal: index_of(id, frontend.internal),
            external: index_of(id, frontend.external),
            flags: kind_flag(frontend.kind) | source_flags(frontend.sources),
        },
    )
}

/// The decoded word of a service entry.
pub(crate) const fn word_of(service: &Service) -> Word {
    Word::unpack(service.word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip_and_unfit_ones_are_refused() {
        let id = |namespace: &str, name: &str, port: &str| ServicePortId {
            namespace: namespace.into(),
            name: name.into(),
            port: port.into(),
            protocol: Protocol::Udp,
            family: Family::V6,
        };
        let label = "a".repeat(63);
        for id in
            [id("default", "web", ""), id("kube-system", "dns", "dns"), id(&label, &label, &label)]
        {
            assert_eq!(decode_name(&encode_name(&id).unwrap()), Some(id));
        }
        assert!(encode_name(&id(&label, &label, &"b".repeat(66))).is_none());
        assert!(encode_name(&id("a/b", "web", "")).is_none());
        assert!(
            decode_name(&Name { text: [0; NAME_LEN], proto: 6, family: 4, pad: [0; 2] }).is_none()
        );
    }

    #[test]
    fn ranges_survive_the_round_trip() {
        for text in ["10.244.0.0/16", "0.0.0.0/0", "192.0.2.7/32", "fd00::/8", "::/0", "::1/128"] {
            let net: IpNet = text.parse().unwrap();
            let (prefix_len, data) = encode_range(7, &net);
            assert_eq!(decode_range(prefix_len, &data), Some((7, net)), "{text}");
        }
        let v4 = RangeData { service_port: 7, addr: Addr::from_v4_word(1) };
        assert_eq!(decode_range(ranges::ID_BITS + 8, &v4), None);
        assert_eq!(decode_range(ranges::ADDRESS_BITS + 1, &v4), None);
    }

    #[test]
    fn algorithms_come_back_from_flags() {
        for algorithm in Algorithm::ALL {
            assert_eq!(decode_algorithm(encode_flags(algorithm)), algorithm);
        }
        assert_eq!(decode_algorithm(0), Algorithm::RoundRobin);
    }

    #[test]
    fn kinds_come_back_from_flags() {
        use FrontendKind::{ClusterIp, LoadBalancer};
        assert_eq!(
            kinds_of(kind_flag(ClusterIp) | kind_flag(LoadBalancer)),
            [ClusterIp, LoadBalancer]
        );
        assert_eq!(kinds_of(frontend_flags::NODE_ADDRESS), []);
    }
}
