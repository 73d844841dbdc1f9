//! What is to become of the sockets of network namespaces.

use kproxy_common::netns::netns_verdict;

use crate::plan::{SocketVerdict, SocketVerdicts};

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
