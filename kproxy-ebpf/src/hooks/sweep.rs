//! Flows whose time is up or whose backend has left, as the daemon finds them: run by BPF_PROG_TEST_RUN alone, never attached. The
//! programs look again, so that what a packet has changed meanwhile stays.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::{
    flow::{
        FlowKey, FlowValue, flow_flags,
        sweep::{SWEPT, SweepQuery},
    },
    net::Addr,
};

use crate::{
    flow::{table, track},
    query,
    skb::{at, at_mut},
};

/// Looks at the flow with this number in the query, and counts it there if it ended: a count of
/// its own the verifier of 5.10 would follow through all outcomes of all flows.
#[inline(never)]
fn sweep(ctx: &TcContext, number: u32, now: u32) {
    let offset = core::mem::offset_of!(SweepQuery, keys)
        + (number as usize & (SWEPT - 1)) * size_of::<FlowKey>();
    let Some(key) = at::<FlowKey>(ctx, offset).copied() else { return };
    if table::is_there(&key)
        && table::find(&key, now).is_none_or(|value| is_over(ctx, &key, value))
        && let Some(removed) = at_mut::<u32>(ctx, core::mem::offset_of!(SweepQuery, removed))
    {
        *removed += 1;
    }
}

/// Ends a flow whose backend has left, or that leaves with the lost source of the query: whether it did.
#[inline(always)]
fn is_over(ctx: &TcContext, key: &FlowKey, value: &mut FlowValue) -> bool {
    let source = at::<Addr>(ctx, core::mem::offset_of!(SweepQuery, source)).copied();
    let source = source.unwrap_or_default();
    if source == Addr::default() {
        return track::leaves(key, value);
    }
    let leaves_with_it = value.flags & (flow_flags::SNAT | flow_flags::REVERSE) == flow_flags::SNAT
        && value.to.src == source;
    if leaves_with_it {
        table::forget(key, value);
    }
    leaves_with_it
}

#[classifier]
fn kp_sweep(ctx: TcContext) -> i32 {
    query::each(&ctx, core::mem::offset_of!(SweepQuery, count), SWEPT, sweep)
}
