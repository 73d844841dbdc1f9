//! The crate's face to a packet's memory and to the fields of `struct __sk_buff`: everything here is
//! bounds-checked, and only [`ensure`], [`store`] and [`comes_again`] call a helper.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_clone_redirect, bpf_skb_pull_data, bpf_skb_store_bytes},
    programs::TcContext,
};
use kproxy_common::{
    abi::MARK_MASQUERADE,
    config::{Config, config_flags},
};

/// skb->pkt_type of packets that are for this node (include/uapi/linux/if_packet.h).
pub(crate) const PACKET_HOST: u32 = 0;

/// skb->protocol (include/uapi/linux/if_ether.h).
pub(crate) const ETH_P_IP: u16 = 0x0800u16.to_be();
pub(crate) const ETH_P_IPV6: u16 = 0x86ddu16.to_be();

/// A field of the context.
macro_rules! field {
    ($ctx:expr, $field:ident) => {
        // SAFETY: a plain read of a live context.
        unsafe { (*$ctx.skb.skb).$field }
    };
}

/// Protocol of the packet in network byte order: [`ETH_P_IP`], [`ETH_P_IPV6`] or another.
#[inline(always)]
pub(crate) fn protocol(ctx: &TcContext) -> u16 {
    field!(ctx, protocol) as u16
}

/// Whether the packet has a VLAN tag: it belongs to the VLAN device above this one and is seen again
/// there.
#[inline(always)]
pub(crate) fn is_tagged(ctx: &TcContext) -> bool {
    field!(ctx, vlan_present) != 0
}

/// Index of the device that the program runs at.
#[inline(always)]
pub(crate) fn device(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a plain read of a live context.
    unsafe { (*skb).ifindex }
}

/// Whether the packet is for this node; a device in promiscuous mode shows those of others too.
#[inline(always)]
pub(crate) fn is_for_host(ctx: &TcContext) -> bool {
    field!(ctx, pkt_type) == PACKET_HOST
}

/// Whether a packet that leaves was made here: it has not come in by any device.
#[inline(always)]
pub(crate) fn is_own(ctx: &TcContext) -> bool {
    field!(ctx, ingress_ifindex) == 0
}

/// Bytes of the largest segment of a packet that the hardware or the kernel cuts up, otherwise 0.
#[inline(always)]
pub(crate) fn segment_size(ctx: &TcContext) -> u32 {
    field!(ctx, gso_size)
}

/// Sets kproxy's bit of the packet's mark.
#[inline(always)]
pub(crate) fn set_mark(ctx: &TcContext) {
    // SAFETY: a field of a live context that tc programs may write.
    unsafe { (*ctx.skb.skb).mark |= MARK_MASQUERADE };
}

/// Clears kproxy's bit of the packet's mark; whether it was set.
#[inline(always)]
pub(crate) fn clear_mark(ctx: &TcContext) -> bool {
    let mark = field!(ctx, mark);
    // SAFETY: a field of a live context that tc programs may write.
    unsafe { (*ctx.skb.skb).mark = mark & !MARK_MASQUERADE };
    mark & MARK_MASQUERADE != 0
}

/// What says in the packet's control block that it has been translated here. It may be there still at the next hook,
/// and on another node that is a network namespace of the same kernel: so it is other for each of them.
#[inline(always)]
fn translated_at(ctx: &TcContext, egress: bool, netns: u64) -> u32 {
    const BASE: u32 = 0x6b70_0000;
    let hook = device(ctx.skb.skb) ^ (egress as u32) << 31;
    // Fibonacci hashing: cookies are small numbers, as indices are.
    BASE ^ hook ^ (netns as u32).wrapping_mul(0x9e37_79b1)
}

/// Tells programs of another version, which come after these while one takes over from the other, that the
/// packet is translated. `netns`: cookie of the node's network namespace.
#[inline(always)]
pub(crate) fn set_translated(ctx: &TcContext, egress: bool, netns: u64) {
    let says = translated_at(ctx, egress, netns);
    // SAFETY: a field of a live context that tc programs may write.
    unsafe { (*ctx.skb.skb).cb[4] = says };
}

/// Whether programs of another version have translated it, which come before these ([`config_flags::ARRIVING`]). Without
/// those it says nothing: a packet may come by here twice.
#[inline(always)]
pub(crate) fn is_translated(ctx: &TcContext, egress: bool, config: &Config) -> bool {
    config.flags & config_flags::ARRIVING != 0
        && field!(ctx, cb)[4] == translated_at(ctx, egress, config.host_netns)
}

/// Gives this node's stack a copy of a packet that has come in, which passes the programs once more.
/// `false`: it is the copy.
#[inline(always)]
pub(crate) fn copy_to_stack(ctx: &TcContext) -> bool {
    if clear_mark(ctx) {
        return false;
    }
    set_mark(ctx);
    // Without the copy the client's own answer has to do.
    let _copied = comes_again(ctx);
    clear_mark(ctx);
    true
}

/// Has a copy of a packet that has come in do so once more, after this one. Whether that was possible.
#[inline(always)]
pub(crate) fn comes_again(ctx: &TcContext) -> bool {
    let skb = ctx.skb.skb;
    // SAFETY: a live context; packet pointers are re-read after the call.
    unsafe { bpf_clone_redirect(skb, device(skb), u64::from(BPF_F_INGRESS)) == 0 }
}

/// Makes the first `len` bytes linear when they are not. `None`: the packet is shorter.
#[inline(always)]
pub(crate) fn ensure(ctx: &TcContext, len: usize) -> Option<()> {
    if ctx.data() + len <= ctx.data_end() {
        return Some(());
    }
    // SAFETY: the helper checks the length itself; packet pointers are re-read after it.
    if unsafe { bpf_skb_pull_data(ctx.skb.skb, len as u32) } != 0 {
        return None;
    }
    (ctx.data() + len <= ctx.data_end()).then_some(())
}

/// A bounds-checked view of packet bytes at `offset`.
#[inline(always)]
pub(crate) fn at<T: Copy>(ctx: &TcContext, offset: usize) -> Option<&T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds as just checked; BPF has no alignment rule for packet loads on the
    // architectures that tc programs run on (NET_IP_ALIGN keeps headers aligned besides).
    Some(unsafe { &*(start as *const T) })
}

/// As [`at`], for several changes.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "the context is shared, the packet behind it is not")]
pub(crate) fn at_mut<T: Copy>(ctx: &TcContext, offset: usize) -> Option<&mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds as just checked; the verifier's prologue has unshared the packet, and
    // callers hold one view at a time.
    Some(unsafe { &mut *(start as *mut T) })
}

/// As [`at`], for writing.
#[inline(always)]
pub(crate) fn write<T: Copy>(ctx: &TcContext, offset: usize, value: T) -> Option<()> {
    *at_mut(ctx, offset)? = value;
    Some(())
}

/// Writes words at `offset`; skb->csum follows.
#[inline(always)]
pub(crate) fn store<const N: usize>(
    ctx: &TcContext,
    offset: usize,
    words: &[u32; N],
) -> Option<()> {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: live bytes; the helper checks the offset.
    let stored = unsafe {
        bpf_skb_store_bytes(ctx.skb.skb, offset as u32, words.as_ptr().cast(), N as u32 * 4, flags)
    };
    (stored == 0).then_some(())
}
