//! What is dialled, and all that may be.

use std::net::SocketAddr;

use kproxy_common::service::{FrontendKey, FrontendValue, frontend_flags, service_port_id};

use crate::dataplane::explain::View;
use crate::plan::{Protocol, ServicePortId};

/// One thing that is dialled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Dialled {
    /// Address and port; of a NodePort one of this node's addresses.
    pub at: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// Whose it is; `None`: nobody's, or the maps hold no name.
    pub service: Option<ServicePortId>,
}

/// Every frontend, by Service, family, address and port. A NodePort stands at the first of this node's
/// addresses that is no loopback address.
pub(super) fn frontends(view: &View) -> Vec<Dialled> {
    let node = |v4: bool| {
        let of_node = view.frontends.iter().filter(|(key, value)| {
            let own = value.flags & frontend_flags::NODE_ADDRESS != 0;
            key.is_address() && own && key.addr.is_v4() == v4
        });
        // Sorted as numbers, loopback addresses last.
        of_node.map(|(key, _)| key.addr).min_by_key(|addr| (addr.is_loopback(), addr.number()))
    };
    let nodes = [node(true), node(false)];
    let dialled = |(key, value): (&FrontendKey, &FrontendValue)| {
        let own = nodes[usize::from(!key.addr.is_v4())];
        let addr = if key.addr.is_unspecified() { own? } else { key.addr };
        Some(Dialled {
            at: SocketAddr::new(addr.into(), key.port.get()),
            protocol: Protocol::from_number(key.proto)?,
            service: view.names.get(&service_port_id(value.internal)).cloned(),
        })
    };
    let mut all: Vec<_> =
        view.frontends.iter().filter(|(key, _)| !key.is_address()).filter_map(dialled).collect();
    all.sort_by(|a, b| (&a.service, a.at, a.protocol).cmp(&(&b.service, b.at, b.protocol)));
    all
}
