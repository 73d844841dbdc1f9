//! The socket path: the dialled frontend is swapped for a backend before a packet exists.

mod apart;
mod context;
mod memory;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use kproxy_common::{
    abi::kernel_feature,
    affinity::{client_kind, netns_client},
    config::config_flags,
    counters::NO_SERVICE,
    drop_reason::DropReason,
    maglev,
    net::{Addr, Port, proto},
    netns::netns_verdict,
    service::{FrontendValue, Slot, Word, frontend_flags},
    socket::Peer,
};

use self::context::{
    Call, hears_one, in_host_netns, is_connected_to, read_peer, read_source, write_peer,
};
use crate::{
    kernel::{has, seconds},
    maps::{CONFIG, NETNS},
    service::{
        load,
        lookup::{self, Lookup},
        pick, source_ranges,
    },
    stats, trace,
};

/// The hook lets the call go on.
const ALLOW: i32 = 1;
/// The hook fails the call with the value given to `bpf_set_retval`.
const DENY: i32 = 0;
/// ECONNREFUSED of every architecture that Linux shares this number on (asm-generic/errno.h).
const ECONNREFUSED: i32 = 111;

/// The address to look up: on the node every loopback address (and the unspecified one, which
/// Linux takes for loopback) stands for the node; in a pod it is the pod's own business (`None`).
#[inline(always)]
fn effective(ctx: &SockAddrContext, addr: Addr) -> Option<Addr> {
    if !addr.is_loopback() && addr != addr.unspecified_of_family() {
        return Some(addr);
    }
    if !in_host_netns(ctx) {
        return None;
    }
    Some(if addr.is_v4() {
        Addr::from_v4_word(u32::from_ne_bytes([127, 0, 0, 1]))
    } else {
        Addr([0, 0, 0, 1u32.to_be()])
    })
}

/// Whether the socket path serves this socket: `--socket-lb host` leaves those of pods alone, the opt-out
/// those of pods that are opted out and of namespaces that nobody has looked at yet
/// (docs/decisions/0014-opt-out.md).
#[inline(always)]
fn is_served(ctx: &SockAddrContext) -> bool {
    let Some(config) = CONFIG.get(0) else { return false };
    if config.flags & (config_flags::HOST_SOCKETS | config_flags::OPT_OUT) == 0 {
        return true;
    }
    in_host_netns(ctx) || config.flags & config_flags::HOST_SOCKETS == 0 && is_opted_in(ctx)
}

/// Whether the socket's network namespace is known to belong to nobody who is opted out.
#[inline(always)]
fn is_opted_in(ctx: &SockAddrContext) -> bool {
    // SAFETY: the helper takes the context; the value is an integer that is read at once.
    unsafe {
        let cookie = bpf_get_netns_cookie(ctx.as_ptr());
        NETNS.get(&cookie).is_some_and(|verdict| *verdict == netns_verdict::SERVED)
    }
}

/// Whether the socket is bound to a loopback address and dials this node by an address of its own: no
/// packet with such a source leaves the node. They are translated at the loopback device (hooks/node.rs).
#[inline(never)]
fn stays_on_loopback(source: &Addr, dialled: &Addr) -> bool {
    source.is_loopback() && (dialled.is_loopback() || lookup::is_node_address(dialled))
}

/// What is known of the dialled address and port, for this socket.
#[inline(always)]
fn look_up<const V6: bool>(
    ctx: &SockAddrContext,
    call: Call,
    dialled: &Addr,
    port: Port,
    proto: u8,
) -> Lookup {
    let Some(addr) = effective(ctx, *dialled) else { return Lookup::NotOurs };
    match lookup::frontend(&addr, port, proto) {
        Lookup::Frontend(_) | Lookup::UnknownPort
            if !is_served(ctx) || stays_on_loopback(&read_source::<V6>(ctx, call), &addr) =>
        {
            Lookup::NotOurs
        }
        found => found,
    }
}

/// connect() and sendmsg(): gives the socket a backend when it dials a frontend. `false`: it does not.
/// What it sends to one who has asked it is an answer, and no request, and stays as it is.
#[inline(always)]
fn try_translate<const V6: bool>(ctx: &SockAddrContext, call: Call) -> Result<bool, DropReason> {
    let proto = context::protocol(ctx) as u8;
    if proto != proto::TCP && proto != proto::UDP {
        return Ok(false);
    }
    // As in the kernel, which asks nobody then: getaddrinfo() connects to see which source it would have
    // (RFC 6724). What is sent on is refused, or served, as a packet.
    let only_connects = proto == proto::UDP && call == Call::Connect;
    let (dialled, port) = read_peer::<V6>(ctx);
    let frontend = match look_up::<V6>(ctx, call, &dialled, port, proto) {
        Lookup::Frontend(value) => value,
        Lookup::UnknownPort if only_connects => return Ok(false),
        Lookup::UnknownPort if call == Call::Send && is_asker::<V6>(ctx, &dialled, port) => {
            return Ok(true);
        }
        Lookup::UnknownPort => {
            let peer = Peer {
                frontend: dialled,
                frontend_port: port,
                source: read_source::<V6>(ctx, call),
                service: NO_SERVICE,
                ..Peer::default()
            };
            return Err(refused(ctx, call, &peer, DropReason::UnknownPort));
        }
        Lookup::NotOurs => return Ok(false),
    };
    let source = read_source::<V6>(ctx, call);
    let service = frontend.internal;
    let Some(packed) = pick::word(service) else { return Ok(false) };
    if only_connects && pick::refusal(Word::unpack(packed)).is_some() {
        return Ok(false);
    }
    let mut state = match call {
        Call::Connect => memory::of_connecting::<true>(ctx),
        Call::Send => memory::of_socket::<true>(ctx),
    };
    let mut place = memory::NOWHERE;
    if call == Call::Send
        && let Some(state) = state.as_deref_mut()
    {
        memory::count_anew::<V6>(ctx, state);
        place = memory::recall::<V6>(ctx, state, &dialled, port, service);
        if place == memory::NOWHERE && apart::is_apart::<V6>(ctx, &dialled, port, proto) {
            return Ok(false);
        }
    }
    let mut known =
        state.as_deref_mut().and_then(|state| memory::at(state, place)).map(|peer| &*peer);
    if let Some(peer) = known
        && peer.is_asker()
    {
        if memory::asks(peer) {
            return Ok(true);
        }
        known = None;
    }
    let mut peer = Peer {
        frontend: dialled,
        frontend_port: port,
        source,
        service,
        word: packed,
        ..Peer::default()
    };
    // As a connection goes on when ranges change, so do datagrams; those from another source are another
    // connection.
    if source_ranges::is_restricted(&frontend)
        && known.is_none_or(|peer| peer.source != source)
        && !is_allowed(ctx, &frontend, &dialled, &source)
    {
        let reason = not_allowed(ctx, &dialled);
        if reason == DropReason::UnknownPort {
            refused(ctx, call, &peer, DropReason::SourceNotAllowed);
        }
        return Err(reason);
    }
    if let Some(peer) = known
        && (peer.word == packed && peer.service == service
            || pick::is_member(packed, &peer.backend, peer.backend_port))
    {
        write_peer::<V6>(ctx, &peer.backend, peer.backend_port);
        if let Some(state) = state {
            memory::keep(state, place, packed, service, &source);
        }
        return Ok(true);
    }
    let settings = pick::settings(service);
    let slot = match new_backend(ctx, service, packed, settings) {
        Ok(slot) => slot,
        // The packets are dropped, and counted, where they leave the node (hooks/egress.rs).
        Err(DropReason::NoLocalBackend) => return Err(DropReason::NoLocalBackend),
        Err(reason) => return Err(refused(ctx, call, &peer, reason)),
    };
    let is_alone = match call {
        Call::Connect => !apart::is_taken(ctx, slot, &dialled, port, proto),
        // What such a socket gets is its peer's, whoever is asked.
        Call::Send => {
            hears_one::<V6>(ctx)
                || state
                    .as_deref()
                    .is_none_or(|state| memory::has_room(state, place, &slot.addr, slot.port))
        }
    };
    if !is_alone && apart::set_apart(ctx, &dialled, port, proto) {
        return Ok(false);
    }
    // One that goes by packets is counted there.
    stats::count_connection(service);
    (peer.backend, peer.backend_port) = (slot.addr, slot.port);
    trace::call(ctx, &peer, None, call.hook());
    // Without memory for the storage only the way back shows the backend.
    if let Some(state) = state {
        match call {
            Call::Connect => {
                memory::forget_connected(state);
                memory::connect(state, peer);
                if load::counts(settings) {
                    load::joined(state);
                }
            }
            Call::Send => memory::remember(state, place, peer),
        }
    }
    write_peer::<V6>(ctx, &slot.addr, slot.port);
    Ok(true)
}

/// The socket dials what gives it no backend.
#[inline(always)]
fn dial_directly<const V6: bool>(ctx: &SockAddrContext, call: Call) {
    match call {
        Call::Connect => {
            if let Some(state) = memory::of_connecting::<false>(ctx) {
                memory::forget_connected(state);
            }
        }
        Call::Send => {
            if let Some(state) = memory::of_socket::<false>(ctx) {
                let (dialled, port) = read_peer::<V6>(ctx);
                memory::hide(state, &dialled, port);
            }
        }
    }
}

/// Whether who has this address and port, which are no frontend, has asked the socket.
#[inline(never)]
fn is_asker<const V6: bool>(ctx: &SockAddrContext, addr: &Addr, port: Port) -> bool {
    let Some(state) = memory::of_socket::<false>(ctx) else { return false };
    let place = memory::recall::<V6>(ctx, state, addr, port, NO_SERVICE);
    memory::at(state, place).is_some_and(|peer| peer.is_asker() && memory::asks(peer))
}

/// Counts a call that is refused, and tells who listens. `peer`: what is dialled, and from where, with no backend yet.
#[inline(never)]
fn refused(ctx: &SockAddrContext, call: Call, peer: &Peer, reason: DropReason) -> DropReason {
    stats::count_drop(peer.service, reason);
    trace::call(ctx, peer, Some(reason), call.hook());
    reason
}

/// Picks a backend for a new connection.
#[inline(always)]
fn new_backend(
    ctx: &SockAddrContext,
    service: u32,
    packed: u64,
    settings: u64,
) -> Result<&'static Slot, DropReason> {
    let client = if pick::affinity(settings) == 0 {
        Addr::default()
    } else {
        // SAFETY: the helper takes the context.
        netns_client(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
    };
    // The socket has no port yet, and no other node ever sees what it was given.
    // SAFETY: the helper takes the context.
    let hash = || maglev::hash_of_number(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    let word = Word::unpack(packed);
    pick::backend(&client, client_kind::NETNS, service, word, settings, hash)
}

/// Whether this socket may connect to a frontend with source ranges. A bound socket is judged by
/// its address. The kernel gives the others one after this hook: a process of the node counts as
/// the node, a pod is judged by its packets unless every pod may (docs/decisions/0008-source-ranges.md).
#[inline(always)]
fn is_allowed(
    ctx: &SockAddrContext,
    frontend: &FrontendValue,
    dialled: &Addr,
    source: &Addr,
) -> bool {
    if !source.is_unspecified() {
        source_ranges::allows(frontend, source)
    } else if in_host_netns(ctx) {
        frontend.flags & frontend_flags::NODE_ALLOWED != 0
    } else {
        source_ranges::allows_all_pods(frontend, dialled)
    }
}

/// What becomes of a call that is not allowed.
#[inline(always)]
fn not_allowed(ctx: &SockAddrContext, dialled: &Addr) -> DropReason {
    if in_host_netns(ctx) && lookup::is_node_address(dialled) {
        // Its packets would not leave the node, and whoever listens there would answer.
        return DropReason::UnknownPort;
    }
    // Judged by the packet where it leaves the pod (hooks/ingress.rs); dropped, and counted, where
    // it leaves the node (hooks/egress.rs).
    DropReason::SourceNotAllowed
}

/// getpeername(): shows the frontend in place of the backend that the socket is connected to.
#[inline(always)]
fn restore_peer<const V6: bool>(ctx: &SockAddrContext) {
    let Some(state) = memory::of_socket::<false>(ctx) else { return };
    let (seen, port) = read_peer::<V6>(ctx);
    if state.connected().has_backend(&seen, port) {
        show_as::<V6>(ctx, state.connected());
    }
}

/// recvmsg(): shows the frontend that the socket dialled where it would see the backend.
#[inline(always)]
fn restore_source<const V6: bool>(ctx: &SockAddrContext) {
    let (seen, port) = read_peer::<V6>(ctx);
    if let Some(state) = memory::of_socket::<false>(ctx) {
        memory::count_anew::<V6>(ctx, state);
        if is_connected_to::<V6>(ctx, &seen, port) {
            if state.connected().has_backend(&seen, port) {
                show_as::<V6>(ctx, state.connected());
            }
            return;
        }
        if let Some(peer) = memory::shown(state, &seen, port)
            && !peer.is_asker()
        {
            show_as::<V6>(ctx, peer);
            return;
        }
    }
    if lookup::may_be_node_port(port, proto::UDP) || !lookup::is_ruled_out(&seen) {
        note_asker::<V6>(ctx, &seen, port);
    }
}

/// Notes who has asked the socket if what it sends there could be taken for a request: a process of this node,
/// from a port that is a NodePort, too, or its own pod by a Service, which it sees as its client.
#[inline(never)]
fn note_asker<const V6: bool>(ctx: &SockAddrContext, asker: &Addr, port: Port) {
    let service = match lookup::frontend(asker, port, proto::UDP) {
        Lookup::Frontend(frontend) if frontend.flags & frontend_flags::NODE_PORT != 0 => {
            frontend.internal
        }
        Lookup::UnknownPort => NO_SERVICE,
        Lookup::Frontend(_) | Lookup::NotOurs => return,
    };
    let Some(state) = memory::of_socket::<true>(ctx) else { return };
    let place = memory::recall::<V6>(ctx, state, asker, port, service);
    let peer = Peer {
        frontend: *asker,
        backend: *asker,
        source: Addr::default(),
        frontend_port: port,
        backend_port: port,
        service,
        word: seconds().into(),
    };
    memory::remember_asker(state, place, peer);
}

#[inline(always)]
fn show_as<const V6: bool>(ctx: &SockAddrContext, peer: &Peer) {
    write_peer::<V6>(ctx, &peer.frontend, peer.frontend_port);
}

#[inline(always)]
fn translate<const V6: bool>(ctx: &SockAddrContext, call: Call) -> i32 {
    match try_translate::<V6>(ctx, call) {
        Err(DropReason::NoBackend | DropReason::UnknownPort) if has(kernel_feature::SET_RETVAL) => {
            // SAFETY: only sets the value that the call returns.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            DENY
        }
        Ok(true) => ALLOW,
        // What is dropped, or refused on a kernel that could only say EPERM, is left to the packet path.
        Ok(false) | Err(_) => {
            dial_directly::<V6>(ctx, call);
            ALLOW
        }
    }
}

#[cgroup_sock_addr(connect4)]
fn kp_connect4(ctx: SockAddrContext) -> i32 {
    translate::<false>(&ctx, Call::Connect)
}

#[cgroup_sock_addr(connect6)]
fn kp_connect6(ctx: SockAddrContext) -> i32 {
    translate::<true>(&ctx, Call::Connect)
}

#[cgroup_sock_addr(sendmsg4)]
fn kp_sendmsg4(ctx: SockAddrContext) -> i32 {
    translate::<false>(&ctx, Call::Send)
}

#[cgroup_sock_addr(sendmsg6)]
fn kp_sendmsg6(ctx: SockAddrContext) -> i32 {
    translate::<true>(&ctx, Call::Send)
}

#[cgroup_sock_addr(recvmsg4)]
fn kp_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore_source::<false>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
fn kp_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore_source::<true>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
fn kp_getpeer4(ctx: SockAddrContext) -> i32 {
    restore_peer::<false>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
fn kp_getpeer6(ctx: SockAddrContext) -> i32 {
    restore_peer::<true>(&ctx);
    ALLOW
}
