//! What a UDP socket keeps, for the daemon to ask: run by BPF_PROG_TEST_RUN alone, never attached,
//! so the data path pays nothing for it. sock_diag(7) lists UDP sockets without their storage.

use aya_ebpf::{
    bindings::bpf_sock, helpers::generated::bpf_sk_storage_get, macros::classifier,
    programs::TcContext,
};
use kproxy_common::socket::{Peer, SocketQuery, SocketState};

use crate::{
    maps::SOCKETS,
    skb::{at, write},
    udp_sockets,
};

/// Copies the peer that the socket of the query is connected to, if a socket program gave it.
#[inline(always)]
fn find(ctx: &TcContext, query: &SocketQuery, answer: &mut Peer) {
    let (remote, local) = ((&query.remote, query.remote_port), (&query.local, query.local_port));
    udp_sockets::look_up(ctx.skb.skb, remote, local, |socket| copy_peer(socket, query, answer));
}

/// Copies the peer that this socket is connected to.
#[inline(always)]
fn copy_peer(socket: *mut bpf_sock, query: &SocketQuery, answer: &mut Peer) {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: a live socket storage map and a socket that is held; null: nothing is created.
    let state = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: null, or the storage of the socket, which is held.
    if let Some(state) = unsafe { state.cast::<SocketState>().as_ref() }
        && state.connected().has_backend(&query.remote, query.remote_port)
    {
        *answer = *state.connected();
    }
}

/// What it returns is of no interest: no packet waits for it.
#[classifier]
fn kp_udp_socket(ctx: TcContext) -> i32 {
    if let Some(query) = at::<SocketQuery>(&ctx, 0) {
        let mut answer = Peer::default();
        find(&ctx, query, &mut answer);
        let _written = write(&ctx, core::mem::offset_of!(SocketQuery, peer), answer);
    }
    0
}
