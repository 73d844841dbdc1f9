//! What is dialled: `service/lookup.rs` of the programs.

use std::net::IpAddr;

use kproxy_common::{
    net::{Addr, Port},
    service::{FrontendKey, frontend_flags, service_port_id},
};

use super::{
    facts::{Found, Frontend, Question, Sender},
    view::View,
};

/// What the sender's address, port and protocol lead to.
pub(super) fn look_up(view: &View, question: &Question) -> Found {
    let Some(addr) = effective(question) else { return Found::OwnLoopback };
    let port = Port::new(question.to.port());
    let mut key = FrontendKey::new(addr, port, question.protocol.number());
    if let Some(found) = frontend(view, &key) {
        return found;
    }
    let flags = view.frontends.get(&FrontendKey::address(addr)).map_or(0, |about| about.flags);
    if flags & frontend_flags::NODE_ADDRESS != 0 {
        key.addr = addr.unspecified_of_family();
        return frontend(view, &key).unwrap_or(Found::NodeAddress);
    }
    if flags & frontend_flags::SERVICE_ADDRESS != 0 {
        return Found::UnknownPort;
    }
    if view.config.is_free_service_address(&addr) {
        return Found::FreeServiceAddress;
    }
    Found::Nothing
}

/// The address to look up: on the node every loopback address stands for the node, and so does the
/// unspecified one; elsewhere neither leads here (`None`).
fn effective(question: &Question) -> Option<Addr> {
    let addr = Addr::from(question.to.ip());
    if !addr.is_loopback() && !addr.is_unspecified() {
        return Some(addr);
    }
    if !matches!(question.from, Sender::Node { .. }) {
        return None;
    }
    let loopback = match question.to.ip() {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    Some(loopback.into())
}

fn frontend(view: &View, key: &FrontendKey) -> Option<Found> {
    let value = *view.frontends.get(key)?;
    let id = service_port_id(value.internal);
    let service = view.names.get(&id).cloned();
    Some(Found::Frontend(Frontend::new(key, value, id, service)))
}

/// Whether this is an address of the node itself.
pub(super) fn is_node_address(view: &View, ip: IpAddr) -> bool {
    let about = view.frontends.get(&FrontendKey::address(Addr::from(ip).of_node()));
    about.is_some_and(|about| about.flags & frontend_flags::NODE_ADDRESS != 0)
}
