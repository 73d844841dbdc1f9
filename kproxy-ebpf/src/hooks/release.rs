//! Sockets that close: their connection no longer counts. Attached only on nodes where a service
//! picks by least connections, for it runs for every socket that is closed.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_sk_storage_get, macros::cgroup_sock,
    programs::SockContext,
};
use kproxy_common::socket::SocketState;

use crate::{maps::SOCKETS, service::load};

#[cgroup_sock(sock_release)]
fn kp_release(ctx: SockContext) -> i32 {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: a live socket storage map and the socket of the context; null: nothing is created.
    let state = unsafe { bpf_sk_storage_get(map, ctx.as_ptr(), core::ptr::null_mut(), 0) };
    // SAFETY: null, or the storage of the socket, which nobody else has open any more.
    if let Some(state) = unsafe { state.cast::<SocketState>().as_mut() }
        && state.counted != 0
    {
        load::left(state);
    }
    1
}
