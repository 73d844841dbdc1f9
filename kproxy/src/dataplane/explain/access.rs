//! Who may dial a frontend that is not open to all: `service/source_ranges.rs` of the programs.

use std::net::IpAddr;

use ipnet::IpNet;
use kproxy_common::{
    config::Range,
    ranges::{ID_BITS, prefix_len_of},
    service::{FrontendKey, frontend_flags},
};

use super::{
    facts::{Access, Frontend, Hook, Question, Sender},
    lookup::is_node_address,
    view::View,
};

/// Whether the sender may dial the frontend.
pub(super) fn of(view: &View, question: &Question, frontend: &Frontend, hook: Hook) -> Access {
    if frontend.value.flags & frontend_flags::SOURCE_RANGES == 0 {
        return Access::Open;
    }
    let ranges = view.ranges_of(frontend.id);
    let denied = |ranges| Access::Denied { ranges };
    match question.from {
        // Nobody has looked at its socket or its link: where the packet leaves it is dropped.
        Sender::Pod { .. } if hook == Hook::Unseen => denied(ranges),
        Sender::Pod { address, .. } => {
            let all_pods = (hook == Hook::Connect).then(|| holder_of_pods(view, question, &ranges));
            if let Some(range) = all_pods.flatten() {
                return Access::LetIn { range: Some(range) };
            }
            by_address(address, ranges)
        }
        Sender::Outside { address } => by_address(address, ranges),
        Sender::Node { source } => of_node(view, question, frontend, hook, source, ranges),
    }
}

/// Whether the hook for sockets lets the socket in: it need not wait for the address of the packets.
pub(super) fn is_settled_by_socket(view: &View, question: &Question, frontend: &Frontend) -> bool {
    let flags = frontend.value.flags;
    if flags & frontend_flags::SOURCE_RANGES == 0 {
        return true;
    }
    match question.from {
        Sender::Pod { .. } => {
            holder_of_pods(view, question, &view.ranges_of(frontend.id)).is_some()
        }
        Sender::Node { source: Some(_) } | Sender::Outside { .. } => true,
        Sender::Node { source: None } => flags & frontend_flags::NODE_ALLOWED != 0,
    }
}

fn by_address(address: Option<IpAddr>, ranges: Vec<IpNet>) -> Access {
    match address {
        None if ranges.is_empty() => Access::Denied { ranges },
        None => Access::Unknown { ranges },
        Some(address) => match ranges.iter().find(|range| range.contains(&address)) {
            Some(range) => Access::LetIn { range: Some(*range) },
            None => Access::Denied { ranges },
        },
    }
}

/// A process of the node counts as the node while its socket has no address; a socket that is bound, and
/// packets, are judged by their source.
fn of_node(
    view: &View,
    question: &Question,
    frontend: &Frontend,
    hook: Hook,
    source: Option<IpAddr>,
    ranges: Vec<IpNet>,
) -> Access {
    let node_allowed = frontend.value.flags & frontend_flags::NODE_ALLOWED != 0;
    let own = |range: &&IpNet| own_addresses(view).any(|ip| range.contains(&ip));
    let holder = ranges.iter().find(own).copied();
    let stays = is_node_address(view, question.to.ip());
    let access = match (hook, source) {
        (Hook::Connect, None) if node_allowed => Access::LetIn { range: holder },
        // The kernel's choice for an address of the node is that address.
        (Hook::Leaving, source)
            if node_allowed && (source == Some(question.to.ip()) || source.is_none() && stays) =>
        {
            Access::LetIn { range: holder }
        }
        (_, Some(source)) => by_address(Some(source), ranges),
        (Hook::Connect, None) if stays => Access::Denied { ranges },
        (_, None) if stays => by_address(Some(question.to.ip()), ranges),
        (_, None) if holder.is_some() => Access::Unknown { ranges },
        (_, None) => Access::Denied { ranges },
    };
    match access {
        // The packets would not leave the node, and whoever listens there would answer.
        Access::Denied { ranges } if hook == Hook::Connect && stays => Access::Refused { ranges },
        access => access,
    }
}

fn own_addresses(view: &View) -> impl Iterator<Item = IpAddr> {
    let own = |key: &FrontendKey, flags: u32| {
        key.is_address() && flags & frontend_flags::NODE_ADDRESS != 0 && !key.addr.is_loopback()
    };
    view.frontends
        .iter()
        .filter(move |(key, value)| own(key, value.flags))
        .map(|(key, _)| key.addr.into())
}

/// The range that holds all pods of the family that is dialled.
fn holder_of_pods(view: &View, question: &Question, ranges: &[IpNet]) -> Option<IpNet> {
    let [v4, v6] = &view.config.cluster;
    let pods = net_of(if question.to.is_ipv4() { v4 } else { v6 })?;
    ranges.iter().find(|range| range.contains(&pods)).copied()
}

fn net_of(range: &Range) -> Option<IpNet> {
    let base = IpAddr::from(range.base);
    let bits = prefix_len_of(range)? - ID_BITS;
    let len = if base.is_ipv4() { bits.checked_sub(96)? } else { bits };
    IpNet::new(base, u8::try_from(len).ok()?).ok()
}
