//! What a hook for sockets sees of the call and of its socket, and what it may change.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use kproxy_common::{
    net::{Addr, Port},
    trace::trace_hook,
};

use crate::{kernel, maps::CONFIG};

/// Which call the hook belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Connect,
    Send,
}

impl Call {
    /// One of [`trace_hook`].
    #[inline(always)]
    pub(super) const fn hook(self) -> u32 {
        match self {
            Self::Connect => trace_hook::CONNECT,
            Self::Send => trace_hook::SENDMSG,
        }
    }
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

/// Protocol of the socket.
#[inline(always)]
pub(super) fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: a field of a live context.
    unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) }
}

/// Address and port in the context: dialled (connect, sendmsg) or seen (recvmsg, getpeername).
#[inline(always)]
pub(super) fn read_peer<const V6: bool>(ctx: &SockAddrContext) -> (Addr, Port) {
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
pub(super) fn write_peer<const V6: bool>(ctx: &SockAddrContext, addr: &Addr, port: Port) {
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

/// The address that the socket, or the message, is bound to; unspecified for none.
#[inline(always)]
pub(super) fn read_source<const V6: bool>(ctx: &SockAddrContext, call: Call) -> Addr {
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

/// The port that the socket is bound to; 0 for none.
#[inline(always)]
pub(super) fn own_port(ctx: &SockAddrContext) -> Port {
    // SAFETY: a field of the socket of a live context, in host byte order.
    let port = unsafe {
        core::ptr::read_volatile(&raw const (*(*ctx.sock_addr).__bindgen_anon_1.sk).src_port)
    };
    Port((port as u16).to_be())
}

/// The port that the socket is connected to, 0 for none.
#[inline(always)]
fn remote_port(ctx: &SockAddrContext) -> Port {
    // SAFETY: the socket of a live context.
    unsafe { kernel::remote_port((*ctx.sock_addr).__bindgen_anon_1.sk) }
}

/// Whether the socket gets what one address sends alone: it is connected, or was. IPv6 keeps the address of a
/// socket that is dissolved, and goes on comparing it (`__udp_disconnect`, net/ipv4/udp.c).
#[inline(always)]
pub(super) fn hears_one<const V6: bool>(ctx: &SockAddrContext) -> bool {
    // SAFETY: fields of the socket of a live context.
    remote_port(ctx).0 != 0
        || V6
            && unsafe { words(&raw const (*(*ctx.sock_addr).__bindgen_anon_1.sk).dst_ip6) }
                != [0; 4]
}

/// Whether the socket is connected to this address and port now. No hook runs when that ends.
#[inline(always)]
pub(super) fn is_connected_to<const V6: bool>(
    ctx: &SockAddrContext,
    addr: &Addr,
    port: Port,
) -> bool {
    if remote_port(ctx) != port {
        return false;
    }
    // SAFETY: fields of the socket of a live context.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if V6 {
            Addr(words(&raw const (*sk).dst_ip6)) == *addr
        } else {
            core::ptr::read_volatile(&raw const (*sk).dst_ip4) == addr.v4_word()
        }
    }
}

/// Whether the socket is in the node's own network namespace.
#[inline(always)]
pub(super) fn in_host_netns(ctx: &SockAddrContext) -> bool {
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
