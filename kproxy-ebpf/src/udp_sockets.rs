//! Looking up UDP sockets by the addresses and ports of a packet, in the network namespace that the
//! program runs in.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_sk_lookup_udp, bpf_sk_release},
};
use kproxy_common::{
    flow::FlowKey,
    net::{Addr, Port},
};

use crate::kernel::remote_port;

/// `BPF_F_CURRENT_NETNS`: of the packet's device, or of the thread that runs the program.
const CURRENT_NETNS: u64 = u64::MAX;
/// Length of the variants of `struct bpf_sock_tuple`, by which the helper knows the family.
const V4_LEN: u32 = 12;
const V6_LEN: u32 = 36;

/// One end of a socket.
pub(crate) type End<'a> = (&'a Addr, Port);

/// What `look` says of the socket that gets what `remote` sends to `local`. The pointer lives for the call.
#[inline(always)]
pub(crate) fn look_up<T>(
    skb: *mut __sk_buff,
    (remote, remote_port): End<'_>,
    (local, local_port): End<'_>,
    look: impl FnOnce(*mut bpf_sock) -> T,
) -> Option<T> {
    // As they follow each other in a packet.
    let ([a, b], [c, d]) = (remote_port.0.to_ne_bytes(), local_port.0.to_ne_bytes());
    let ports = u32::from_ne_bytes([a, b, c, d]);
    let (mut tuple, len) = if remote.is_v4() {
        ([remote.v4_word(), local.v4_word(), ports, 0, 0, 0, 0, 0, 0], V4_LEN)
    } else {
        let ([a, b, c, d], [e, f, g, h]) = (remote.0, local.0);
        ([a, b, c, d, e, f, g, h, ports], V6_LEN)
    };
    // SAFETY: the tuple is live and has the length given; the reference is released below.
    let socket =
        unsafe { bpf_sk_lookup_udp(skb.cast(), (&raw mut tuple).cast(), len, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return None;
    }
    let said = look(socket);
    // SAFETY: the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    Some(said)
}

/// Whether a datagram is for a socket that is connected to its sender, or, with `bound`, for any.
#[inline(never)]
pub(crate) fn has_socket(skb: *mut __sk_buff, key: &FlowKey, bound: bool) -> bool {
    look_up(skb, (&key.src, key.src_port), (&key.dst, key.dst_port), |socket| {
        // A connected socket is found for what its peer sends alone.
        // SAFETY: the socket is held.
        bound || unsafe { remote_port(socket) }.0 != 0
    })
    .unwrap_or(false)
}
