//! Which backends may get a connection, why the others do not, and whom they see as their client.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kproxy_common::{
    affinity::{AffinityKey, client_kind, netns_client},
    config::config_flags,
    net::Addr,
    service::{Slot, slot_flags},
};

use super::{
    facts::{Affinity, Candidate, Explanation, Hook, Kept, Question, SeenAs, Sender, Standing},
    view::{Run, View},
};
use crate::{
    dataplane::codec,
    plan::{Family, Scope},
};

/// Session affinity, and what is kept for the client (`service/pick.rs`, `last_given`).
pub(super) fn affinity(
    view: &View,
    question: &Question,
    told: &Explanation,
    index: u32,
    run: &Run,
) -> Option<Affinity> {
    let seconds = run.service.affinity_seconds;
    if seconds == 0 {
        return None;
    }
    let key =
        client(view, question, told).map(|(client, kind)| AffinityKey::new(client, kind, index));
    let kept = key.and_then(|key| view.affinity.get(&key)).and_then(|value| {
        let left = Duration::from_nanos(value.left(view.now, seconds));
        if left.is_zero() {
            return None;
        }
        let is_it = |slot: &Slot| slot.addr == value.addr && slot.port == value.port;
        Some(Kept {
            backend: SocketAddr::new(value.addr.into(), value.port.get()),
            expires_in_seconds: u32::try_from(left.as_secs()).unwrap_or(u32::MAX),
            counts: run.backends().iter().any(is_it),
        })
    });
    Some(Affinity { seconds, client_known: key.is_some(), kept })
}

/// Who is remembered: the network namespace of a socket, the source of a packet.
fn client(view: &View, question: &Question, told: &Explanation) -> Option<(Addr, u32)> {
    if told.hook != Hook::Connect {
        return Some((question.from.address()?.into(), client_kind::ADDRESS));
    }
    let cookie = match question.from {
        Sender::Node { .. } => Some(view.config.host_netns).filter(|cookie| *cookie != 0),
        Sender::Pod { netns, .. } => netns,
        Sender::Outside { .. } => None,
    };
    cookie.map(|cookie| (netns_client(cookie), client_kind::NETNS))
}

/// The backends of the set, then the endpoints that it leaves out.
pub(super) fn candidates(
    view: &View,
    question: &Question,
    told: &Explanation,
    index: u32,
    run: &Run,
) -> Vec<Candidate> {
    let held = told.affinity.and_then(|affinity| affinity.kept).filter(|kept| kept.counts);
    let mut all: Vec<Candidate> = run.backends().iter().map(candidate).collect();
    for candidate in &mut all {
        let at = SocketAddr::new(candidate.addr, candidate.port);
        if held.is_some_and(|kept| kept.backend != at) {
            candidate.standing = Standing::HeldElsewhere;
        } else {
            candidate.seen_as = Some(seen_as(view, question, told.hook, candidate));
        }
    }
    all.extend(others(view, index, run));
    all
}

/// The endpoints that an empty set leaves out.
pub(super) fn left_out(view: &View, told: &Explanation) -> Vec<Candidate> {
    let Some(index) = told.set.as_ref().map(|set| set.index) else { return Vec::new() };
    view.run(index).map(|run| others(view, index, run)).unwrap_or_default()
}

/// The endpoints of the service port that are not in this set.
fn others(view: &View, index: u32, run: &Run) -> Vec<Candidate> {
    let scope = codec::scope_of(index);
    let other = view.run(index ^ 1);
    let other = other.into_iter().flat_map(|other| other.backends());
    let in_other = other.map(|slot| {
        let standing = match scope {
            Scope::Local if slot.flags & slot_flags::LOCAL == 0 => Standing::OtherNode,
            Scope::Local | Scope::Cluster => Standing::HintsOrTerminating,
        };
        (slot, standing)
    });
    let keep = run.extra().iter().map(|slot| (slot, Standing::KeepsOnly));
    let mut all: Vec<Candidate> = Vec::new();
    for (slot, standing) in in_other.chain(keep) {
        let it = Candidate { standing, ..candidate(slot) };
        let is_it = |other: &Candidate| (other.addr, other.port) == (it.addr, it.port);
        if !run.backends().iter().map(candidate).any(|other| is_it(&other))
            && !all.iter().any(is_it)
        {
            all.push(it);
        }
    }
    all
}

fn candidate(slot: &Slot) -> Candidate {
    Candidate {
        addr: slot.addr.into(),
        port: slot.port.get(),
        local: slot.flags & slot_flags::LOCAL != 0,
        standing: Standing::May,
        seen_as: None,
    }
}

/// Whom the backend sees as its client (`flow/open.rs`).
fn seen_as(view: &View, question: &Question, hook: Hook, backend: &Candidate) -> SeenAs {
    let sender = question.from.address();
    let own_ports = view.config.snat_count != 0;
    match hook {
        // The kernel gives the source, as to any other connection.
        Hook::Connect | Hook::Unseen => SeenAs::Client,
        Hook::Leaving => SeenAs::Node,
        Hook::PodLink if sender == Some(backend.addr) && own_ports => SeenAs::Frontend,
        Hook::PodLink if sender == Some(backend.addr) => masqueraded(view),
        Hook::PodLink => SeenAs::Client,
        Hook::Uplink if backend.local => SeenAs::Client,
        Hook::Uplink if own_ports && has_source(view, backend.addr) => SeenAs::Node,
        Hook::Uplink => masqueraded(view),
    }
}

/// Whether some uplink has an address of the family.
fn has_source(view: &View, backend: IpAddr) -> bool {
    view.uplinks.values().any(|uplink| {
        let source = match Family::of(&backend) {
            Family::V4 => &uplink.v4,
            Family::V6 => &uplink.v6,
        };
        *source != Addr::default()
    })
}

const fn masqueraded(view: &View) -> SeenAs {
    if view.config.flags & config_flags::NETFILTER != 0 {
        SeenAs::Masquerade
    } else {
        SeenAs::Client
    }
}
