//! What becomes of a connection and why, said in plain code: a pure function of what the maps hold and
//! of the question. [`decide`] reads nothing and prints nothing: `Pins::view` fills the [`View`],
//! `cli/explain` renders the [`Explanation`].
//!
//! The rules are those of the programs, and a change there is a change here:
//!
//! | here | there (`kproxy-ebpf/src`) |
//! |---|---|
//! | `hook` | `hooks/socket/mod.rs` (`look_up`, `is_served`), `hooks/{ingress,egress,node}.rs` |
//! | `lookup` | `service/lookup.rs`, `hooks/egress.rs` (`to_nobody`) |
//! | `access` | `service/source_ranges.rs`, `hooks/socket/mod.rs` (`is_allowed`), `hooks/tc.rs` (`dial_of_node`) |
//! | `backends` | `service/pick.rs`, `flow/open.rs` (`choose_source`, `hairpin`, `masquerade`) |
//!
//! `kproxy/tests/packets/model/explain.rs` holds random Services and senders against the programs.

mod access;
mod backends;
mod facts;
mod hook;
mod lookup;
pub(super) mod view;

#[cfg(test)]
mod tests;

use kproxy_common::{drop_reason::DropReason, service::empty_verdict};

pub use self::{
    facts::{
        Access, Affinity, Candidate, Explanation, Found, Frontend, Hook, Kept, Question, SeenAs,
        Sender, Set, Standing, Verdict, WhyHere,
    },
    view::{Run, View},
};
use crate::plan::FrontendKind;

/// Explains what becomes of a new connection, or of a first datagram.
pub fn decide(view: &View, question: &Question) -> Explanation {
    let found = lookup::look_up(view, question);
    let (hook, why_here) = hook::of(view, question, &found);
    let mut told = Explanation::new(hook, why_here, found);
    let Some(frontend) = told.frontend().cloned() else {
        (told.verdict, told.reason) = without_frontend(&told.found, hook);
        return told;
    };
    told.access = access::of(view, question, &frontend, hook);
    let internal = hook != Hook::Uplink;
    let index = if internal { frontend.value.internal } else { frontend.value.external };
    told.set = view.set(index);
    match told.access {
        Access::Refused { .. } => return told.ends(Verdict::Refused, DropReason::SourceNotAllowed),
        Access::Denied { .. } => {
            if hook == Hook::Connect {
                (told.hook, told.why_here) =
                    (hook::of_packets(view, question), WhyHere::NotAllowed);
            }
            return told.ends(Verdict::Dropped, DropReason::SourceNotAllowed);
        }
        Access::Open | Access::LetIn { .. } | Access::Unknown { .. } => {}
    }
    // A packet judged by its own source: the socket path has left the connection alone.
    if hook == Hook::Connect && !access::is_settled_by_socket(view, question, &frontend) {
        (told.hook, told.why_here) = (hook::of_packets(view, question), WhyHere::NotAllowed);
    }
    let Some(run) = view.run(index) else { return told.ends(Verdict::Dropped, DropReason::BadMap) };
    let is_empty = run.word().count == 0;
    let is_cluster_ip = frontend.kinds.contains(&FrontendKind::ClusterIp);
    if told.hook == Hook::Unseen && !(is_empty && is_cluster_ip) {
        // No program of ours gives such a packet a backend (hooks/egress.rs, `untranslated`).
        told.verdict = Verdict::LeftAlone;
        return told;
    }
    if is_empty {
        return without_backend(view, question, told, run);
    }
    told.affinity = backends::affinity(view, question, &told, index, run);
    told.candidates = backends::candidates(view, question, &told, index, run);
    told.verdict = match told.access {
        Access::Unknown { .. } => Verdict::Depends,
        _ => Verdict::Answered,
    };
    told
}

/// What becomes of what dials no frontend.
fn without_frontend(found: &Found, hook: Hook) -> (Verdict, Option<DropReason>) {
    match found {
        // A packet that no hook for the way in has seen is not answered where it leaves.
        Found::UnknownPort if hook == Hook::Unseen => {
            (Verdict::Dropped, Some(DropReason::UnknownPort))
        }
        Found::UnknownPort => (Verdict::Refused, Some(DropReason::UnknownPort)),
        Found::FreeServiceAddress => (Verdict::Dropped, Some(DropReason::FreeServiceAddress)),
        Found::Frontend(_) | Found::OwnLoopback | Found::NodeAddress | Found::Nothing => {
            (Verdict::LeftAlone, None)
        }
    }
}

/// What becomes of what dials a set without a backend.
fn without_backend(
    view: &View,
    question: &Question,
    mut told: Explanation,
    run: &Run,
) -> Explanation {
    told.candidates = backends::left_out(view, &told);
    let drops = run.word().first == empty_verdict::DROP;
    // What is dropped, or could only fail with EPERM, is left to the packets (`translate`).
    if told.hook == Hook::Connect && (drops || !view.refuses_calls) {
        (told.hook, told.why_here) = (hook::of_packets(view, question), WhyHere::NoBackend);
    }
    if drops {
        return told.ends(Verdict::Dropped, DropReason::NoLocalBackend);
    }
    let verdict = if told.hook == Hook::Unseen { Verdict::Dropped } else { Verdict::Refused };
    told.ends(verdict, DropReason::NoBackend)
}
