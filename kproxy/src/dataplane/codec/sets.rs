//! Backend sets: the word that publishes one, its flags, and the run of slots that it leads to.

use std::net::IpAddr;

use kproxy_common::{
    maglev::{PER_SLOT, pack, table_slots},
    net::{Addr, Port},
    service::{
        MAX_EXTRA, Service, Slot, Word, cluster_index, empty_verdict, local_index, service_flags,
        slot_flags,
    },
};

use crate::plan::{
    Algorithm, Backend, BackendSet, EmptyVerdict, Protocol, Scope, ServicePortPlan, maglev_table,
};

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

/// The decoded word of a service entry.
pub(crate) const fn word_of(service: &Service) -> Word {
    Word::unpack(service.word)
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

/// A backend as a slot.
pub(crate) fn encode_slot(backend: &Backend) -> Slot {
    Slot {
        addr: Addr::from(backend.addr),
        port: Port::new(backend.port),
        flags: if backend.local { slot_flags::LOCAL } else { 0 },
        extra: 0,
    }
}

/// A slot as a backend.
pub(crate) fn decode_slot(slot: &Slot) -> Backend {
    Backend {
        addr: IpAddr::from(slot.addr),
        port: slot.port.get(),
        local: slot.flags & slot_flags::LOCAL != 0,
    }
}

/// Length of the run that a word leads to; `first` is its first slot.
pub(crate) fn run_len(word: Word, first: Option<Slot>) -> u32 {
    let Some(first) = first.filter(|_| word.count > 0) else { return 0 };
    let count = u32::from(word.count);
    let table = if first.flags & slot_flags::TABLE == 0 { 0 } else { table_slots(count) };
    count + first.extra.min(MAX_EXTRA) + table
}

/// Whether a set picks by a lookup table.
pub(crate) fn wants_table(plan: &ServicePortPlan, set: &BackendSet) -> bool {
    plan.algorithm == Algorithm::Maglev && matches!(set.backends.len(), 1..=Word::MAX_BACKENDS)
}

/// Puts the lookup table of the set behind its run, which is not empty.
pub(crate) fn add_table(run: &mut Vec<Slot>, set: &BackendSet) {
    run[0].flags |= slot_flags::TABLE;
    run.extend(maglev_table(&set.backends).chunks(PER_SLOT as usize).map(pack));
}

/// The first slot of a run, without its lookup table.
pub(crate) const fn without_table(first: Slot) -> Slot {
    Slot { flags: first.flags & !slot_flags::TABLE, ..first }
}

/// A slot as one that is not the first of its run.
pub(crate) const fn inner_slot(slot: Slot) -> Slot {
    Slot { extra: 0, ..without_table(slot) }
}

/// The run of a set: its backends, then UDP endpoints that it leaves out and that serve all the
/// same, for sockets that are there already (CT-05). Beyond [`MAX_EXTRA`] they are left out here;
/// an empty set has no run and so none of them. The lookup table of a maglev set is not among them.
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
    run
}

/// Backends in no set that keep their UDP flows; with those of the sets, which may be left out.
pub(crate) fn encode_serving(plan: &ServicePortPlan, with_sets: bool) -> Box<[(Addr, Port)]> {
    let sets = [Some(&plan.cluster), plan.local.as_ref()].into_iter().flatten();
    let of_sets = sets.filter(|_| with_sets).flat_map(|set| &set.backends);
    let of_sets = of_sets.map(|backend| (backend.addr, backend.port));
    let all = plan.serving.iter().copied().chain(of_sets);
    all.map(|(addr, port)| (Addr::from(addr), Port::new(port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_come_back_from_flags() {
        for algorithm in Algorithm::ALL {
            assert_eq!(decode_algorithm(encode_flags(algorithm)), algorithm);
        }
        assert_eq!(decode_algorithm(0), Algorithm::RoundRobin);
    }
}
