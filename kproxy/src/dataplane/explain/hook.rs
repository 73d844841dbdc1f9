//! Which program decides.

use kproxy_common::{config::config_flags, netns::netns_verdict};

use super::{
    facts::{Found, Hook, Question, Sender, WhyHere},
    lookup::is_node_address,
    view::View,
};
use crate::plan::Protocol;

/// Where it is decided, and why there.
pub(super) fn of(view: &View, question: &Question, found: &Found) -> (Hook, WhyHere) {
    if matches!(question.from, Sender::Outside { .. }) {
        return (Hook::Uplink, WhyHere::Usual);
    }
    let why = match past_sockets(view, question, found) {
        None => return (Hook::Connect, WhyHere::Usual),
        Some(why) => why,
    };
    (of_packets(view, question), why)
}

/// Where the sender's packets are judged.
pub(super) const fn of_packets(view: &View, question: &Question) -> Hook {
    match question.from {
        Sender::Outside { .. } => Hook::Uplink,
        Sender::Node { .. } => Hook::Leaving,
        Sender::Pod { .. } if view.has_pod_links => Hook::PodLink,
        Sender::Pod { .. } => Hook::Unseen,
    }
}

/// Why the socket path does not serve the socket, if it does not (`hooks/socket/mod.rs`).
fn past_sockets(view: &View, question: &Question, found: &Found) -> Option<WhyHere> {
    let flags = view.config.flags;
    if question.protocol == Protocol::Sctp {
        return Some(WhyHere::Sctp);
    }
    if flags & config_flags::NODE_PACKETS != 0 {
        return Some(WhyHere::SocketsUnused);
    }
    if !view.has_sockets {
        return Some(WhyHere::NotAttached);
    }
    match question.from {
        Sender::Pod { .. } if flags & config_flags::HOST_SOCKETS != 0 => {
            return Some(WhyHere::HostSocketsOnly);
        }
        Sender::Pod { netns: Some(cookie), .. }
            if flags & config_flags::OPT_OUT != 0
                && view.netns.get(&cookie) != Some(&netns_verdict::SERVED) =>
        {
            return Some(WhyHere::OptedOut);
        }
        Sender::Node { source: Some(source) } if source.is_loopback() => {
            let to = question.to.ip();
            let is_here = to.is_loopback() || to.is_unspecified() || is_node_address(view, to);
            if is_here && matches!(found, Found::Frontend(_) | Found::UnknownPort) {
                return Some(WhyHere::LoopbackSource);
            }
        }
        _ => {}
    }
    // Where no frontend is dialled the packets show what becomes of them.
    match found {
        Found::FreeServiceAddress => Some(WhyHere::Usual),
        _ => None,
    }
}
