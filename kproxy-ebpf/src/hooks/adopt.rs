//! Connections of kube-proxy's that go on by its rules, as the daemon finds them in netfilter's table: run by
//! BPF_PROG_TEST_RUN alone, never attached.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kproxy_common::flow::adopt::{ADOPTED, AdoptQuery, Adopted};

use crate::{
    flow::adopt,
    query,
    skb::{at, at_mut},
};

/// Looks at the connection with this number in the query, and counts it there if it is left to netfilter.
#[inline(never)]
fn leave(ctx: &TcContext, number: u32, now: u32) {
    let offset = core::mem::offset_of!(AdoptQuery, connections)
        + (number as usize & (ADOPTED - 1)) * size_of::<Adopted>();
    let Some(connection) = at::<Adopted>(ctx, offset) else { return };
    if adopt::leave_to_netfilter(connection, now)
        && let Some(adopted) = at_mut::<u32>(ctx, core::mem::offset_of!(AdoptQuery, adopted))
    {
        *adopted += 1;
    }
}

#[classifier]
fn kp_adopt(ctx: TcContext) -> i32 {
    query::each(&ctx, core::mem::offset_of!(AdoptQuery, count), ADOPTED, leave)
}
