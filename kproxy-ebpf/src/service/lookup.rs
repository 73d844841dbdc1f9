//! From a dialled address to a frontend.

use kproxy_common::{
    filter,
    flow::FlowKey,
    net::{Addr, Port},
    service::{FrontendKey, FrontendValue, frontend_flags},
};

use crate::maps::{CONFIG, FILTER, FRONTENDS};

/// What is known of a dialled address, port and protocol.
#[derive(Clone, Copy)]
pub(crate) enum Lookup {
    /// No business of ours.
    NotOurs,
    /// A frontend.
    Frontend(FrontendValue),
    /// A ClusterIP without such a port (VER-16, VER-17).
    UnknownPort,
}

/// Whether the filter rules `addr` out. Most traffic is no service and ends here.
#[inline(always)]
pub(crate) fn is_ruled_out(addr: &Addr) -> bool {
    !has_bit(filter::bit(addr))
}

#[inline(always)]
fn has_bit(bit: u32) -> bool {
    let (word, mask) = filter::position(bit);
    FILTER.get(word).is_some_and(|bits| bits & mask != 0)
}

/// Whether a packet to this address, which is no frontend, must not leave the node.
#[inline(always)]
pub(crate) fn is_free_service_address(addr: &Addr) -> bool {
    CONFIG.get(0).is_some_and(|config| config.is_free_service_address(addr))
}

/// Whether this is an address of the node itself.
#[inline(never)]
pub(crate) fn is_node_address(addr: &Addr) -> bool {
    let key = FrontendKey::address(*addr);
    // SAFETY: read at once; user space only ever replaces whole elements.
    unsafe { FRONTENDS.get(&key) }
        .is_some_and(|about| about.flags & frontend_flags::NODE_ADDRESS != 0)
}

/// Whether this is a ClusterIP, and not bound to the node itself.
#[inline(always)]
pub(crate) fn is_service_address(addr: &Addr) -> bool {
    let key = FrontendKey::address(*addr);
    let kinds = frontend_flags::SERVICE_ADDRESS | frontend_flags::NODE_ADDRESS;
    // SAFETY: read at once; user space only ever replaces whole elements.
    unsafe { FRONTENDS.get(&key) }
        .is_some_and(|about| about.flags & kinds == frontend_flags::SERVICE_ADDRESS)
}

/// Whether this may be a port that is translated at this node's addresses.
#[inline(always)]
pub(crate) fn may_be_node_port(port: Port, proto: u8) -> bool {
    has_bit(filter::bit_of_node_port(port, proto))
}

/// Whether a packet comes from a NodePort of this node: from one of its addresses, and a port that is
/// translated there.
#[inline(always)]
pub(crate) fn is_node_port(key: &FlowKey) -> bool {
    // The port first: most traffic comes from one of this node's addresses.
    may_be_node_port(key.src_port, key.proto)
        && !is_ruled_out(&key.src)
        && is_frontend_of_node(&key.src, key.src_port, key.proto)
}

#[inline(never)]
fn is_frontend_of_node(addr: &Addr, port: Port, proto: u8) -> bool {
    matches!(frontend(addr, port, proto), Lookup::Frontend(_))
}

/// Looks a dialled address up: exact frontend, then NodePort, then unknown port.
#[inline(always)]
pub(crate) fn frontend(addr: &Addr, port: Port, proto: u8) -> Lookup {
    if is_ruled_out(addr) { Lookup::NotOurs } else { frontend_past_filter(addr, port, proto) }
}

/// As [`frontend`], whatever the filter says.
#[inline(always)]
pub(crate) fn frontend_past_filter(addr: &Addr, port: Port, proto: u8) -> Lookup {
    let mut key = FrontendKey::new(*addr, port, proto);
    // SAFETY: the value is copied at once; user space only ever replaces whole elements.
    if let Some(value) = unsafe { FRONTENDS.get(&key) } {
        return Lookup::Frontend(*value);
    }
    key.port = Port(0);
    key.proto = 0;
    // SAFETY: as above.
    let Some(about) = (unsafe { FRONTENDS.get(&key) }) else { return Lookup::NotOurs };
    let flags = about.flags;
    if flags & frontend_flags::NODE_ADDRESS != 0 {
        key = FrontendKey::new(addr.unspecified_of_family(), port, proto);
        // SAFETY: as above.
        if let Some(value) = unsafe { FRONTENDS.get(&key) } {
            return Lookup::Frontend(*value);
        }
        // The node's own ports: never refused, also when a ClusterIP is bound here.
        return Lookup::NotOurs;
    }
    if flags & frontend_flags::SERVICE_ADDRESS != 0 {
        return Lookup::UnknownPort;
    }
    Lookup::NotOurs
}
