//! What a UDP socket keeps, for the daemon to ask: run by BPF_PROG_TEST_RUN alone, never attached,
//! so the data path pays nothing for it. sock_diag(7) lists UDP sockets without their storage.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_sk_lookup_udp, bpf_sk_release, generated::bpf_sk_storage_get},
    macros::classifier,
    programs::TcContext,
};
use kproxy_common::socket::{Peer, SocketQuery, SocketState};

use crate::{
    maps::SOCKETS,
    skb::{at, write},
};

/// `BPF_F_CURRENT_NETNS`: of the thread that runs the program.
const CURRENT_NETNS: u64 = u64::MAX;
/// Length of the variants of `struct bpf_sock_tuple`, by which the helper knows the family.
const V4_LEN: u32 = 12;
const V6_LEN: u32 = 36;

/// Copies the peer that the socket of the query is connected to, if a socket program gave it.
#[inline(always)]
fn find(ctx: &TcContext, query: &SocketQuery, answer: &mut Peer) {
    // `struct bpf_sock_tuple`: addresses and ports of an answer, from the peer to the socket.
    let ports = u32::from_ne_bytes(ports(query));
    let (remote, local) = (&query.remote.0, &query.local.0);
    let (mut tuple, len) = if query.remote.is_v4() {
        ([query.remote.v4_word(), query.local.v4_word(), ports, 0, 0, 0, 0, 0, 0], V4_LEN)
    } else {
        let [a, b, c, d] = *remote;
        let [e, f, g, h] = *local;
        ([a, b, c, d, e, f, g, h, ports], V6_LEN)
    };
    // SAFETY: the tuple is live and has the length given; the reference is released below.
    let socket =
        unsafe { bpf_sk_lookup_udp(ctx.as_ptr(), (&raw mut tuple).cast(), len, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return;
    }
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: a live socket storage map and a socket that is held; null: nothing is created.
    let state = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: null, or the storage of the socket, which is held.
    if let Some(state) = unsafe { state.cast::<SocketState>().as_ref() }
        && state.connected().has_backend(&query.remote, query.remote_port)
    {
        *answer = *state.connected();
    }
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
}

/// Both ports as they follow each other in a packet.
#[inline(always)]
fn ports(query: &SocketQuery) -> [u8; 4] {
    let ([a, b], [c, d]) = (query.remote_port.0.to_ne_bytes(), query.local_port.0.to_ne_bytes());
    [a, b, c, d]
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
