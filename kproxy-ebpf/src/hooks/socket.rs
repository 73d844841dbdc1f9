//! The socket path: the dialled frontend is swapped for a backend before a packet exists.

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
    service::{FrontendValue, Slot, Word, frontend_flags, service_port_id},
    socket::{PEERS, Peer, SocketState},
};

use crate::{
    kernel::has,
    maps::{CONFIG, NETNS, SOCKETS},
    service::{
        load,
        lookup::{self, Lookup},
        pick, source_ranges,
    },
    stats,
};

/// The hook lets the call go on.
const ALLOW: i32 = 1;
/// The hook fails the call with the value given to `bpf_set_retval`.
const DENY: i32 = 0;
/// ECONNREFUSED of every architecture that Linux shares this number on (asm-generic/errno.h).
const ECONNREFUSED: i32 = 111;

/// Which call the hook belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Connect,
    Send,
}

/// Reads an IPv6 address of a context.
///
/// # Safety
/// `ip` points into a live context.
#[inline(always)]
unsafe fn words(ip: *const [u32; 4]) -> [u32; 4] {
    // SAFETY: the caller's promise; word by word, as the verifier allows.
    unsafe {
        [
            core::ptr::read_volatile(&raw const (*ip)[0]),
            core::ptr::read_volatile(&raw const (*ip)[1]),
            core::ptr::read_volatile(&raw const (*ip)[2]),
            core::ptr::read_volatile(&raw const (*ip)[3]),
        ]
    }
}

/// Address and port in the context: dialled (connect, sendmsg) or seen (recvmsg, getpeername).
#[inline(always)]
fn read_peer<const V6: bool>(ctx: &SockAddrContext) -> (Addr, Port) {
    let sa = ctx.sock_addr;
    // SAFETY: fields of a live context, read word by word as the verifier allows.
    unsafe {
        let port = Port(core::ptr::read_volatile(&raw const (*sa).user_port) as u16);
        let addr = if V6 {
            Addr(words(&raw const (*sa).user_ip6))
        } else {
            Addr::from_v4_word(core::ptr::read_volatile(&raw const (*sa).user_ip4))
        };
        (addr, port)
    }
}

/// Replaces address and port in the context. An IPv6 socket gets IPv4 backends v4-mapped.
#[inline(always)]
fn write_peer<const V6: bool>(ctx: &SockAddrContext, addr: &Addr, port: Port) {
    let sa = ctx.sock_addr;
    // SAFETY: fields of a live context that these hooks may write.
    unsafe {
        if V6 {
            let ip = &raw mut (*sa).user_ip6;
            core::ptr::write_volatile(&raw mut (*ip)[0], addr.0[0]);
            core::ptr::write_volatile(&raw mut (*ip)[1], addr.0[1]);
            core::ptr::write_volatile(&raw mut (*ip)[2], addr.0[2]);
            core::ptr::write_volatile(&raw mut (*ip)[3], addr.0[3]);
        } else {
            core::ptr::write_volatile(&raw mut (*sa).user_ip4, addr.v4_word());
        }
        core::ptr::write_volatile(&raw mut (*sa).user_port, u32::from(port.0));
    }
}

/// Whether the socket is in the node's own network namespace.
#[inline(always)]
fn in_host_netns(ctx: &SockAddrContext) -> bool {
    let Some(config) = CONFIG.get(0) else { return false };
    // SAFETY: the helper takes the context, or null for the initial namespace.
    unsafe {
        let own = bpf_get_netns_cookie(ctx.as_ptr());
        if config.host_netns == 0 {
            own == bpf_get_netns_cookie(core::ptr::null_mut())
        } else {
            own == config.host_netns
        }
    }
}

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

/// connect() and sendmsg(): gives the socket a backend when it dials a frontend.
#[inline(always)]
fn try_translate<const V6: bool>(ctx: &SockAddrContext, call: Call) -> Result<(), DropReason> {
    // SAFETY: a field of a live context.
    let proto = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) } as u8;
    if proto != proto::TCP && proto != proto::UDP {
        return Ok(());
    }
    let (dialled, port) = read_peer::<V6>(ctx);
    let found = match effective(ctx, dialled) {
        Some(addr) => lookup::frontend(&addr, port, proto),
        None => Lookup::NotOurs,
    };
    let found = match found {
        Lookup::Frontend(_) | Lookup::UnknownPort if !is_served(ctx) => Lookup::NotOurs,
        found => found,
    };
    let frontend = match found {
        Lookup::Frontend(value) => value,
        Lookup::UnknownPort => {
            stats::count_drop(NO_SERVICE, DropReason::UnknownPort);
            return Err(DropReason::UnknownPort);
        }
        Lookup::NotOurs => {
            if call == Call::Connect {
                forget_peers(ctx);
            }
            return Ok(());
        }
    };
    let service = frontend.internal;
    let Some(packed) = pick::word(service) else { return Ok(()) };
    // SAFETY: the helper returns null or this socket's live storage.
    let mut state = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None).as_mut() };
    if call == Call::Send
        && let Some(state) = state.as_deref_mut()
        && let Some(peer) = remembered(state, &dialled, port, service)
        && (peer.word == packed && peer.service == service
            || pick::is_member(packed, &peer.backend, peer.backend_port))
    {
        peer.word = packed;
        peer.service = service;
        write_peer::<V6>(ctx, &peer.backend, peer.backend_port);
        return Ok(());
    }
    let settings = pick::settings(service);
    let slot = new_backend::<V6>(ctx, call, &frontend, &dialled, packed, settings)?;
    // Without memory for the storage only the way back shows the backend.
    if let Some(state) = state {
        let fresh = Peer {
            frontend: dialled,
            backend: slot.addr,
            frontend_port: port,
            backend_port: slot.port,
            service,
            word: packed,
        };
        if state.counted != 0 {
            load::left(state);
        }
        match call {
            Call::Connect => {
                state.peers[0] = fresh;
                // A connected socket has one peer; what it dialled before is over.
                state.peers[1].frontend_port = Port(0);
                state.peers[2].frontend_port = Port(0);
                state.peers[3].frontend_port = Port(0);
                if load::counts(settings) {
                    load::joined(state);
                }
            }
            Call::Send => match remembered(state, &dialled, port, service) {
                Some(peer) => *peer = fresh,
                None => remember(state, fresh),
            },
        }
    }
    write_peer::<V6>(ctx, &slot.addr, slot.port);
    Ok(())
}

/// Picks a backend for a new connection and counts it or its refusal.
#[inline(always)]
fn new_backend<const V6: bool>(
    ctx: &SockAddrContext,
    call: Call,
    frontend: &FrontendValue,
    dialled: &Addr,
    packed: u64,
    settings: u64,
) -> Result<&'static Slot, DropReason> {
    if source_ranges::is_restricted(frontend) && !is_allowed::<V6>(ctx, call, frontend, dialled) {
        if in_host_netns(ctx) && lookup::is_node_address(dialled) {
            // Its packets would not leave the node, and whoever listens there would answer.
            stats::count_drop(frontend.internal, DropReason::SourceNotAllowed);
            return Err(DropReason::UnknownPort);
        }
        // Judged by the packet where it leaves the pod (hooks/ingress.rs); dropped, and counted, where
        // it leaves the node (hooks/egress.rs).
        return Err(DropReason::SourceNotAllowed);
    }
    let service = frontend.internal;
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
    match pick::backend(&client, client_kind::NETNS, service, word, settings, hash) {
        Ok(slot) => {
            stats::count_connection(service);
            Ok(slot)
        }
        Err(DropReason::NoLocalBackend) => {
            // The packets are dropped, and counted, where they leave the node (hooks/egress.rs).
            Err(DropReason::NoLocalBackend)
        }
        Err(reason) => {
            stats::count_drop(service, reason);
            Err(reason)
        }
    }
}

/// Whether this socket may connect to a frontend with source ranges. A bound socket is judged by
/// its address. The kernel gives the others one after this hook: a process of the node counts as
/// the node, a pod is judged by its packets unless every pod may (docs/decisions/0008-source-ranges.md).
#[inline(always)]
fn is_allowed<const V6: bool>(
    ctx: &SockAddrContext,
    call: Call,
    frontend: &FrontendValue,
    dialled: &Addr,
) -> bool {
    let source = read_source::<V6>(ctx, call);
    if !source.is_unspecified() {
        source_ranges::allows(frontend, &source)
    } else if in_host_netns(ctx) {
        frontend.flags & frontend_flags::NODE_ALLOWED != 0
    } else {
        source_ranges::allows_all_pods(frontend, dialled)
    }
}

/// The address that the socket, or the message, is bound to; unspecified for none.
#[inline(always)]
fn read_source<const V6: bool>(ctx: &SockAddrContext, call: Call) -> Addr {
    let sa = ctx.sock_addr;
    // SAFETY: fields of a live context, read word by word as the verifier allows: those of the
    // message in sendmsg only, those of the socket in both.
    unsafe {
        match (call, V6) {
            (Call::Send, false) => {
                Addr::from_v4_word(core::ptr::read_volatile(&raw const (*sa).msg_src_ip4))
            }
            (Call::Send, true) => Addr(words(&raw const (*sa).msg_src_ip6)),
            (Call::Connect, v6) => {
                let sk = (*sa).__bindgen_anon_1.sk;
                if v6 {
                    Addr(words(&raw const (*sk).src_ip6))
                } else {
                    Addr::from_v4_word(core::ptr::read_volatile(&raw const (*sk).src_ip4))
                }
            }
        }
    }
}

/// The peer that the socket remembers for this frontend of this service port, whichever of its two
/// sets it came from: a policy may have changed since.
#[inline(always)]
fn remembered<'a>(
    state: &'a mut SocketState,
    frontend: &Addr,
    port: Port,
    service: u32,
) -> Option<&'a mut Peer> {
    let mut i = 0;
    while i < PEERS {
        let peer = &state.peers[i];
        let same_owner = service_port_id(peer.service) == service_port_id(service);
        if peer.frontend_port == port && same_owner && peer.frontend == *frontend {
            return Some(&mut state.peers[i]);
        }
        i += 1;
    }
    None
}

/// Remembers a peer, in place of the oldest when all are taken.
#[inline(always)]
fn remember(state: &mut SocketState, peer: Peer) {
    let place = state.next as usize & (PEERS - 1);
    state.peers[place] = peer;
    state.next = place as u32 + 1;
}

/// A socket that dials something that is no frontend has no translated peer any more.
#[inline(always)]
fn forget_peers(ctx: &SockAddrContext) {
    // SAFETY: the helper returns null or this socket's live storage.
    if let Some(state) = unsafe { SOCKETS.get_ptr_mut(ctx).as_mut() } {
        if state.counted != 0 {
            load::left(state);
        }
        let mut i = 0;
        while i < PEERS {
            state.peers[i].frontend_port = Port(0);
            i += 1;
        }
    }
}

/// recvmsg() and getpeername(): shows the frontend where the socket would see the backend.
#[inline(always)]
fn try_restore<const V6: bool>(ctx: &SockAddrContext) {
    // SAFETY: the helper returns null or this socket's live storage.
    let Some(state) = (unsafe { SOCKETS.get_ptr_mut(ctx).as_ref() }) else { return };
    let (seen, port) = read_peer::<V6>(ctx);
    let mut i = 0;
    while i < PEERS {
        let peer = &state.peers[i];
        if peer.frontend_port != Port(0) && peer.backend_port == port && peer.backend == seen {
            write_peer::<V6>(ctx, &peer.frontend, peer.frontend_port);
            return;
        }
        i += 1;
    }
}

#[inline(always)]
fn translate<const V6: bool>(ctx: &SockAddrContext, call: Call) -> i32 {
    match try_translate::<V6>(ctx, call) {
        Err(DropReason::NoBackend | DropReason::UnknownPort) if has(kernel_feature::SET_RETVAL) => {
            // SAFETY: only sets the value that the call returns.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            DENY
        }
        // Dropped, or refused on a kernel that could only say EPERM: left to the packet path.
        Ok(()) | Err(_) => ALLOW,
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
    try_restore::<false>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
fn kp_recvmsg6(ctx: SockAddrContext) -> i32 {
    try_restore::<true>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
fn kp_getpeer4(ctx: SockAddrContext) -> i32 {
    try_restore::<false>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
fn kp_getpeer6(ctx: SockAddrContext) -> i32 {
    try_restore::<true>(&ctx);
    ALLOW
}
