//! Flows whose time is up, as the daemon finds them: run by BPF_PROG_TEST_RUN alone, never attached. The
//! programs look again, so that what a packet has changed meanwhile stays.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::flow::{
    FlowKey,
    sweep::{SWEPT, SweepQuery},
};

use crate::{
    flow::table,
    kernel::now,
    skb::{at, write},
};

#[inline(always)]
fn key(ctx: &TcContext, number: usize) -> Option<FlowKey> {
    let offset = core::mem::offset_of!(SweepQuery, keys) + number * size_of::<FlowKey>();
    at::<FlowKey>(ctx, offset).copied()
}

/// What it returns is of no interest.
#[classifier]
fn kp_sweep(ctx: TcContext) -> i32 {
    let Some(count) = at::<u32>(&ctx, core::mem::offset_of!(SweepQuery, count)).copied() else {
        return 0;
    };
    let (now, mut removed, mut i) = (now(), 0u32, 0);
    while i < SWEPT {
        if i as u32 >= count {
            break;
        }
        let Some(key) = key(&ctx, i) else { break };
        if table::is_there(&key) && table::find(&key, now).is_none() {
            removed += 1;
        }
        i += 1;
    }
    let _written = write(&ctx, core::mem::offset_of!(SweepQuery, removed), removed);
    0
}
