//! Connections of a socket that its address alone cannot tell apart once they have a backend: they are left to
//! the packets, where each is a flow with a port of its own.
//!
//! Two frontends of the same backend, from one unconnected UDP socket: whose answer is it? More frontends than
//! the socket's memory holds. Two frontends of the same backend from one bound port: the kernel has one socket
//! with these addresses and ports, and refuses the other (EADDRNOTAVAIL).

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use kproxy_common::{
    net::{Addr, Port},
    service::Slot,
    socket::{Dialled, apart_key, bound_key},
};

use super::context::{hears_one, in_host_netns, own_port};
use crate::{
    flow::filter,
    maps::{APART, BOUND},
    service::lookup,
};

/// Whether what this socket sends to the frontend goes by packets.
#[inline(never)]
pub(super) fn is_apart<const V6: bool>(
    ctx: &SockAddrContext,
    frontend: &Addr,
    port: Port,
    proto: u8,
) -> bool {
    let key = apart_key(own_port(ctx), *frontend, port, proto);
    // SAFETY: nothing is read from it.
    unsafe { APART.get(&key) }.is_some()
        && !hears_one::<V6>(ctx)
        && (in_host_netns(ctx) || filter::answers_pods())
}

/// Leaves what this socket sends to the frontend to the packets. `false`: they are not looked at where they
/// come from, or not yet: the first one asks for that, and one answer at a time is told apart meanwhile.
#[inline(never)]
pub(super) fn set_apart(ctx: &SockAddrContext, frontend: &Addr, port: Port, proto: u8) -> bool {
    let is_seen = if in_host_netns(ctx) {
        // At the loopback device only NodePorts are looked for.
        lookup::may_be_node_port(port, proto) || !lookup::is_node_address(frontend)
    } else {
        filter::note_pod_flows()
    };
    let key = apart_key(own_port(ctx), *frontend, port, proto);
    is_seen && APART.insert(&key, &0, 0).is_ok()
}

/// Whether the socket, which connects, is bound to a port from which this backend was dialled by another
/// frontend. Remembers this one otherwise.
#[inline(never)]
pub(super) fn is_taken(
    ctx: &SockAddrContext,
    slot: &Slot,
    frontend: &Addr,
    port: Port,
    proto: u8,
) -> bool {
    let own_port = own_port(ctx);
    if own_port.0 == 0 {
        return false;
    }
    // SAFETY: the helpers take the context.
    let (netns, socket) =
        unsafe { (bpf_get_netns_cookie(ctx.as_ptr()), bpf_get_socket_cookie(ctx.as_ptr())) };
    let key = bound_key(netns, own_port, slot.addr, slot.port, proto);
    // SAFETY: compared at once; a torn one is of two connections, and takes another way than it might.
    if let Some(other) = unsafe { BOUND.get(&key) }
        && other.socket != socket
        && (other.frontend != *frontend || other.port != port)
    {
        return true;
    }
    let dialled = Dialled { frontend: *frontend, port, pad: 0, rest: 0, socket };
    // Without memory for it the kernel says what it thinks of the second one.
    BOUND.insert(&key, &dialled, 0).ok();
    false
}
