//! Who dials.

use std::net::IpAddr;
use std::thread;

use kproxy_common::net::Addr;
use kproxy_common::service::{FrontendKey, frontend_flags, slot_flags};

use crate::cli::values::Who;
use crate::dataplane::explain::{Sender, View};
use crate::node::namespaces;

/// The senders to explain for: the one that was named, or one of each kind.
pub(super) fn of(view: &View, who: Option<Who>) -> Vec<Sender> {
    let node = Sender::Node { source: None };
    let pod = Sender::Pod { address: None, netns: None };
    let outside = Sender::Outside { address: None };
    match who {
        None => vec![node, pod, outside],
        Some(Who::Node) => vec![node],
        Some(Who::Pod) => vec![pod],
        Some(Who::Outside) => vec![outside],
        Some(Who::Address(ip)) => vec![of_address(view, ip)],
    }
}

/// Whose the address is: this node's, that of a pod here (there is a network namespace that has it, or it is an
/// endpoint on this node), or another machine's.
fn of_address(view: &View, ip: IpAddr) -> Sender {
    let addr = Addr::from(ip);
    let about = view.frontends.get(&FrontendKey::address(addr.of_node()));
    let is_node = about.is_some_and(|about| about.flags & frontend_flags::NODE_ADDRESS != 0);
    if is_node || addr.is_loopback() {
        return Sender::Node { source: Some(ip) };
    }
    // The thread ends in another namespace than this one.
    let inhabitants = thread::spawn(namespaces::inhabitants).join().unwrap_or_default();
    let found = inhabitants.addresses.iter().find(|(_, addresses)| addresses.contains(&ip));
    if let Some((cookie, _)) = found {
        let netns = Some(*cookie).filter(|cookie| *cookie != 0);
        return Sender::Pod { address: Some(ip), netns };
    }
    let is_endpoint_here = view
        .runs
        .values()
        .flat_map(|run| &run.slots)
        .any(|slot| slot.addr == addr && slot.flags & slot_flags::LOCAL != 0);
    if is_endpoint_here {
        Sender::Pod { address: Some(ip), netns: None }
    } else {
        Sender::Outside { address: Some(ip) }
    }
}
