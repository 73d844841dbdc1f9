//! Who opens a flow; numbers, as they are parameters of functions.

use kproxy_common::trace::trace_hook;

/// Somebody beyond an uplink.
pub(crate) const OUTSIDE: u8 = 0;
/// A pod of this node, by packets of its own.
pub(crate) const POD: u8 = 1;
/// A process of this node.
pub(crate) const NODE: u8 = 2;

/// The hook that sees the packets of this opener, at the loopback device or at another.
#[inline(always)]
pub(super) const fn hook(opener: u8, is_loopback: bool) -> u32 {
    match opener {
        OUTSIDE => trace_hook::INGRESS,
        POD => trace_hook::POD_INGRESS,
        _ if is_loopback => trace_hook::NODE_EGRESS,
        _ => trace_hook::EGRESS,
    }
}
