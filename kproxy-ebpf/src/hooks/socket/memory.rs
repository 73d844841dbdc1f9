//! What a socket remembers: the peer that it is connected to, and those that it sends to.

use core::arch::asm;

use aya_ebpf::{
    helpers::generated::{bpf_sk_storage_get, bpf_skc_to_mptcp_sock},
    programs::SockAddrContext,
};
use kproxy_common::{
    abi::kernel_feature,
    net::{Addr, Port},
    service::service_port_id,
    socket::{ASKER_SECONDS, PEERS, Peer, SENT, SocketState},
};

use super::context::is_connected_to;
use crate::{
    kernel::{has, seconds},
    maps::SOCKETS,
    service::load,
};

/// Memory of the socket whose call this is, made if `CREATE`.
#[inline(always)]
pub(super) fn of_socket<'a, const CREATE: bool>(
    ctx: &SockAddrContext,
) -> Option<&'a mut SocketState> {
    // SAFETY: the helper returns null or this socket's live storage.
    unsafe {
        if CREATE { SOCKETS.get_or_insert_ptr_mut(ctx, None) } else { SOCKETS.get_ptr_mut(ctx) }
            .as_mut()
    }
}

/// As [`of_socket`], of a socket that connects. The kernel connects an MPTCP socket by a TCP socket of its
/// own, but the process asks for the peer of the former, and closes it: so its memory is that one's.
/// Only the first of the TCP sockets has some, by which it is told from those that join.
#[inline(never)]
pub(super) fn of_connecting<'a, const CREATE: bool>(
    ctx: &SockAddrContext,
) -> Option<&'a mut SocketState> {
    if !has(kernel_feature::MPTCP) {
        return of_socket::<CREATE>(ctx);
    }
    // SAFETY: the helper takes any socket, and returns null for one that is not of MPTCP.
    let whole = unsafe { bpf_skc_to_mptcp_sock((*ctx.sock_addr).__bindgen_anon_1.sk.cast()) };
    if whole.is_null() {
        return of_socket::<CREATE>(ctx);
    }
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: a live socket storage map and a socket that lives as long as the one of the context; null:
    // zeroed when it is created.
    let state = unsafe {
        let state = bpf_sk_storage_get(map, whole.cast(), core::ptr::null_mut(), u64::from(CREATE));
        state.cast::<SocketState>().as_mut()
    }?;
    let is_first = of_socket::<false>(ctx).is_some()
        || CREATE && state.connected().is_free() && of_socket::<true>(ctx).is_some();
    is_first.then_some(state)
}

/// Whether the socket is connected to the backend that connect() has led to.
#[inline(always)]
fn is_connected<const V6: bool>(ctx: &SockAddrContext, state: &SocketState) -> bool {
    let peer = state.connected();
    !peer.is_free() && is_connected_to::<V6>(ctx, &peer.backend, peer.backend_port)
}

/// Counts a socket no more whose connection has been dissolved meanwhile.
#[inline(always)]
pub(super) fn count_anew<const V6: bool>(ctx: &SockAddrContext, state: &mut SocketState) {
    if state.counted != 0 && !is_connected::<V6>(ctx, state) {
        load::left(state);
    }
}

/// The socket dials something that gives it no peer.
#[inline(always)]
pub(super) fn forget_connected(state: &mut SocketState) {
    if state.counted != 0 {
        load::left(state);
    }
    state.peers[CONNECTED].frontend_port = Port(0);
}

/// Place of the peer that the socket is connected to.
const CONNECTED: usize = 0;
/// No place.
pub(super) const NOWHERE: usize = PEERS;

/// Place of the peer that this frontend of this service port led the socket to before.
#[inline(always)]
pub(super) fn recall<const V6: bool>(
    ctx: &SockAddrContext,
    state: &mut SocketState,
    frontend: &Addr,
    port: Port,
    service: u32,
) -> usize {
    let is_of = |peer: &Peer| {
        // Whichever of its two sets it came from: a policy may have changed since.
        peer.frontend_port == port
            && service_port_id(peer.service) == service_port_id(service)
            && peer.frontend == *frontend
    };
    let mut place = CONNECTED;
    if !is_of(state.connected()) || !is_connected::<V6>(ctx, state) {
        place += 1;
        while place < PEERS && !is_of(&state.peers[place]) {
            place += 1;
        }
    }
    // By way of memory, so that the verifier does not walk what follows once for each place.
    let found = &raw mut state.found;
    // SAFETY: a field of live storage.
    unsafe {
        core::ptr::write_volatile(found, place as u16);
        core::ptr::read_volatile(found) as usize
    }
}

/// The peer at this place.
#[inline(always)]
pub(super) fn at(state: &mut SocketState, mut place: usize) -> Option<&mut Peer> {
    if place >= PEERS {
        return None;
    }
    // SAFETY: changes nothing; but the offset is computed after the check, as the verifier needs it.
    unsafe { asm!("{0} = {0}", inout(reg) place) };
    // SAFETY: checked above.
    Some(unsafe { state.peers.get_unchecked_mut(place) })
}

/// Whether one who has asked the socket did so lately.
#[inline(always)]
pub(super) fn asks(peer: &Peer) -> bool {
    u64::from(seconds()).wrapping_sub(peer.word) <= ASKER_SECONDS
}

/// The peer at this place stays; what comes from it is shown as coming from its frontend again.
#[inline(always)]
pub(super) fn keep(state: &mut SocketState, place: usize, word: u64, service: u32, source: &Addr) {
    let Some(peer) = at(state, place) else { return };
    (peer.word, peer.service, peer.source) = (word, service, *source);
    if state.hidden & 1 << place != 0 {
        show(state, place);
    }
}

/// Whether there is room for a peer with this backend at the place where it was, or anywhere, and no other has
/// the same: whose answer it is could not be told.
#[inline(never)]
pub(super) fn has_room(state: &SocketState, place: usize, backend: &Addr, port: Port) -> bool {
    let mut other = CONNECTED + 1;
    while other < PEERS {
        let peer = &state.peers[other];
        if other != place && state.hidden & 1 << other == 0 && peer.has_backend(backend, port) {
            return false;
        }
        other += 1;
    }
    place != NOWHERE || spare(state) != NOWHERE
}

/// A place that is free, or has one who has asked the socket: anybody may send such a question, so it never
/// takes the place of what the socket itself has dialled.
#[inline(always)]
fn spare(state: &SocketState) -> usize {
    let (mut found, mut place) = (NOWHERE, CONNECTED + 1);
    while place < PEERS {
        let peer = &state.peers[place];
        if peer.is_free() || found == NOWHERE && peer.is_asker() {
            found = place;
        }
        place += 1;
    }
    found
}

/// Remembers one who has asked the socket, if there is room, and the socket has not dialled it itself.
#[inline(always)]
pub(super) fn remember_asker(state: &mut SocketState, place: usize, asker: Peer) {
    let place = if place == NOWHERE { spare(state) } else { place };
    // The place of what connect() has led to is neither.
    if let Some(remembered) = at(state, place)
        && (remembered.is_free() || remembered.is_asker())
    {
        *remembered = asker;
    }
}

/// Remembers a peer that connect() has led to.
#[inline(always)]
pub(super) fn connect(state: &mut SocketState, peer: Peer) {
    state.peers[CONNECTED] = peer;
}

/// Remembers a peer that sendmsg() has led to, at the place where it was, a spare one, or that of the oldest.
#[inline(always)]
pub(super) fn remember(state: &mut SocketState, place: usize, peer: Peer) {
    let mut place = if place == CONNECTED || place >= PEERS { spare(state) } else { place };
    if place == NOWHERE {
        let oldest = usize::from(state.next) % SENT;
        state.next = oldest as u16 + 1;
        place = 1 + oldest;
    }
    if let Some(remembered) = at(state, place) {
        *remembered = peer;
    }
    show(state, place);
}

/// What comes from the backend of this peer is shown as coming from its frontend.
#[inline(always)]
fn show(state: &mut SocketState, place: usize) {
    let Some(peer) = at(state, place) else { return };
    let (backend, port) = (peer.backend, peer.backend_port);
    hide(state, &backend, port);
    state.hidden &= !(1 << place);
}

/// What comes from this backend is shown as it is: something else led there since.
#[inline(never)]
pub(super) fn hide(state: &mut SocketState, backend: &Addr, port: Port) {
    let mut place = CONNECTED + 1;
    while place < PEERS {
        if state.peers[place].has_backend(backend, port) {
            state.hidden |= 1 << place;
        }
        place += 1;
    }
}

/// The peer whose frontend stands for this backend.
#[inline(always)]
pub(super) fn shown<'a>(state: &'a SocketState, backend: &Addr, port: Port) -> Option<&'a Peer> {
    let mut place = CONNECTED + 1;
    while place < PEERS {
        let peer = &state.peers[place];
        if state.hidden & 1 << place == 0 && peer.has_backend(backend, port) {
            return Some(peer);
        }
        place += 1;
    }
    None
}
