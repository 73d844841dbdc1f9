//! Which way a packet with these addresses goes: the kernel's own routes (FIB).
//!
//! The neighbour is left to the kernel (`bpf_redirect_neigh`): an entry that only ever served as a
//! source of MAC addresses would never be probed again, and a neighbour that moved never be found.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as Query,
        bpf_redir_neigh,
    },
    helpers::bpf_fib_lookup,
};
use kproxy_common::{abi::kernel_feature, flow::FlowKey};

use crate::{kernel::has, skb};

/// Index of the loopback device in every network namespace (include/net/flow.h).
pub(crate) const LOOPBACK: u32 = 1;
/// Address families (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Smallest MTU of a link (RFC 8200 section 5): what is told when the kernel does not say the
/// route's (`mtu_result`: kernel 5.12, commit e1850ea9bd9e).
const LEAST_MTU: u32 = 1280;

/// Where a packet goes.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    /// Index of the device, 0: nowhere (no route, or the packet is this node's own, or too big).
    pub(crate) device: u32,
    /// Not 0: the packet is too big, and this is the largest size in bytes.
    pub(crate) mtu: u32,
    pub(super) next_hop: bpf_redir_neigh,
}

impl Route {
    #[inline(always)]
    pub(crate) fn none() -> Self {
        // SAFETY: integers only.
        unsafe { core::mem::zeroed() }
    }
}

/// Asks for the route of a packet with these addresses that came in here. `size`: bytes of its
/// largest IP packet; one that is too big has no device. 0: the device anyway, and its MTU if this
/// packet is too big for it.
#[inline(never)]
pub(crate) fn find(skb: *mut __sk_buff, key: &FlowKey, size: u32, route: &mut Route) {
    // SAFETY: integers only.
    let mut query: Query = unsafe { core::mem::zeroed() };
    query.ifindex = skb::device(skb);
    query.l4_protocol = key.proto;
    query.sport = key.src_port.0;
    query.dport = key.dst_port.0;
    query.__bindgen_anon_1.tot_len = size as u16;
    if key.dst.is_v4() {
        query.family = AF_INET;
        query.__bindgen_anon_3.ipv4_src = key.src.v4_word();
        query.__bindgen_anon_4.ipv4_dst = key.dst.v4_word();
    } else {
        query.family = AF_INET6;
        query.__bindgen_anon_3.ipv6_src = key.src.0;
        query.__bindgen_anon_4.ipv6_dst = key.dst.0;
    }
    let flags = if has(kernel_feature::SKIP_NEIGH) { BPF_FIB_LOOKUP_SKIP_NEIGH } else { 0 };
    // SAFETY: the query is live and of the size said.
    let answer =
        unsafe { bpf_fib_lookup(skb.cast(), &raw mut query, size_of::<Query>() as i32, flags) };
    if answer == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        // SAFETY: every member of the union is an integer.
        let told = u32::from(unsafe { query.__bindgen_anon_1.mtu_result });
        route.mtu = if told == 0 || size != 0 && told >= size { LEAST_MTU } else { told };
        // Without a size the kernel looks at the device's MTU last, with the route found.
        if size != 0 {
            return;
        }
    } else if answer != i64::from(BPF_FIB_LKUP_RET_SUCCESS)
        && answer != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH)
    {
        return;
    }
    route.device = query.ifindex;
    // The destination has become the gateway, which may be of the other family (RFC 5549).
    route.next_hop.nh_family = u32::from(query.family);
    // SAFETY: every member of the unions is an integer.
    route.next_hop.__bindgen_anon_1.ipv6_nh = unsafe { query.__bindgen_anon_4.ipv6_dst };
}
