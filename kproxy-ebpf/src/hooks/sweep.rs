//! Flows whose time is up or whose backend has left, as the daemon finds them: run by BPF_PROG_TEST_RUN alone, never attached. The
//! programs look again, so that what a packet has changed meanwhile stays.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::flow::{
    FlowKey,
    sweep::{SWEPT, SweepQuery},
};

use crate::{
    flow::{table, track},
    kernel::now,
    skb::{at, at_mut},
};

/// Looks at the flow with this number in the query, and counts it there if its time was up: a count of
/// its own the verifier of 5.10 would follow through all outcomes of all flows.
#[inline(never)]
fn sweep(ctx: &TcContext, number: u32, now: u32) {
    let offset = core::mem::offset_of!(SweepQuery, keys)
        + (number as usize & (SWEPT - 1)) * size_of::<FlowKey>();
    let Some(key) = at::<FlowKey>(ctx, offset).copied() else { return };
    if table::is_there(&key)
        && table::find(&key, now).is_none_or(|value| track::leaves(&key, value))
        && let Some(removed) = at_mut::<u32>(ctx, core::mem::offset_of!(SweepQuery, removed))
    {
        *removed += 1;
    }
}

/// What it returns is of no interest.
#[classifier]
fn kp_sweep(ctx: TcContext) -> i32 {
    let Some(count) = at::<u32>(&ctx, core::mem::offset_of!(SweepQuery, count)).copied() else {
        return 0;
    };
    let (now, mut number) = (now(), 0);
    while number < SWEPT as u32 {
        if number >= count {
            break;
        }
        sweep(&ctx, number, now);
        number += 1;
    }
    0
}
