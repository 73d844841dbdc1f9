//! From what was typed to the addresses and ports that are dialled.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use kproxy_common::net::{Addr, Port};
use kproxy_common::service::{FrontendKey, FrontendValue, frontend_flags, service_port_id};

use super::dialled::{Dialled, frontends};
use super::nearest;
use crate::cli::values::{ServiceFilter, Target};
use crate::dataplane::explain::View;
use crate::plan::{Protocol, ServicePortId};

/// What is dialled.
///
/// # Errors
/// There is no such Service or address, or several: names those that may be meant.
pub(crate) fn resolve(view: &View, target: &Target) -> Result<Vec<Dialled>> {
    match target {
        Target::Address { ip, port: Some(port), protocol } => {
            Ok(at_port(view, SocketAddr::new(*ip, *port), *protocol))
        }
        Target::Address { ip, port: None, protocol } => at_address(view, *ip, *protocol),
        Target::Service { name, protocol } => of_service(view, name, *protocol),
    }
}

/// The protocols that the address and port have a frontend for; TCP if there is none.
fn at_port(view: &View, at: SocketAddr, protocol: Option<Protocol>) -> Vec<Dialled> {
    let of = |protocol: Protocol| Dialled { at, protocol, service: owner(view, at, protocol) };
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let wanted: Vec<_> = all.into_iter().filter(|of| protocol.is_none_or(|p| p == *of)).collect();
    let known: Vec<_> =
        wanted.iter().filter(|protocol| value(view, at, **protocol).is_some()).collect();
    if known.is_empty() {
        return wanted.first().map(|protocol| of(*protocol)).into_iter().collect();
    }
    known.into_iter().map(|protocol| of(*protocol)).collect()
}

fn owner(view: &View, at: SocketAddr, protocol: Protocol) -> Option<ServicePortId> {
    view.names.get(&service_port_id(value(view, at, protocol)?.internal)).cloned()
}

/// The frontend of an address and port, as this node would find it.
fn value(view: &View, at: SocketAddr, protocol: Protocol) -> Option<FrontendValue> {
    let addr = Addr::from(at.ip()).of_node();
    let key = |addr| FrontendKey::new(addr, Port::new(at.port()), protocol.number());
    let of_node = || {
        let about = view.frontends.get(&FrontendKey::address(addr))?;
        let is_node = about.flags & frontend_flags::NODE_ADDRESS != 0;
        is_node.then(|| view.frontends.get(&key(addr.unspecified_of_family())))?
    };
    view.frontends.get(&key(addr)).or_else(of_node).copied()
}

fn at_address(view: &View, ip: IpAddr, protocol: Option<Protocol>) -> Result<Vec<Dialled>> {
    let is_it = |of: &Dialled| of.at.ip() == ip && protocol.is_none_or(|p| p == of.protocol);
    let found: Vec<_> = frontends(view).into_iter().filter(is_it).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let nobody = Dialled { at: SocketAddr::new(ip, 0), protocol: Protocol::Tcp, service: None };
    let near = nearest::frontends_like(view, &nobody);
    bail!(
        "{ip} is no frontend of a Service{}; give a port to hear what becomes of it",
        nearest::meant(&near)
    )
}

fn of_service(
    view: &View,
    name: &ServiceFilter,
    protocol: Option<Protocol>,
) -> Result<Vec<Dialled>> {
    let namespace = |of: &ServicePortId| name.namespace.as_ref().is_none_or(|n| *n == of.namespace);
    let is_named = |of: &ServicePortId| of.name == name.name && namespace(of);
    let all = frontends(view);
    let named: Vec<&Dialled> =
        all.iter().filter(|of| of.service.as_ref().is_some_and(is_named)).collect();
    let typed = name
        .namespace
        .as_ref()
        .map_or_else(|| name.name.clone(), |namespace| format!("{namespace}/{}", name.name));
    if named.is_empty() {
        bail!(
            "no Service {typed} in the maps{}",
            nearest::meant(&nearest::names(view.names.values(), &typed))
        );
    }
    let has_port = |of: &Dialled| {
        let id = of.service.as_ref();
        protocol.is_none_or(|protocol| protocol == of.protocol)
            && name.port.as_ref().is_none_or(|port| {
                id.is_some_and(|id| id.port == *port) || port.parse() == Ok(of.at.port())
            })
    };
    let found: Vec<Dialled> =
        named.iter().filter(|of| has_port(of)).map(|of| (*of).clone()).collect();
    let ports = |of: &[&Dialled]| -> Vec<String> {
        let ports = of.iter().filter_map(|of| of.service.as_ref());
        let ports: BTreeSet<_> = ports
            .map(|id| format!("{}/{}", id.text(), id.protocol.name().to_lowercase()))
            .collect();
        ports.into_iter().collect()
    };
    if found.is_empty() {
        bail!("Service {typed} has no such port and protocol; it has {}", ports(&named).join(", "));
    }
    let ambiguous = ports(&found.iter().collect::<Vec<_>>());
    if ambiguous.len() > 1 {
        bail!("{typed} may be any of {}; say which", ambiguous.join(", "));
    }
    Ok(found)
}
