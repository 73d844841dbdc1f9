//! Puts a fragment that the daemon has held back where it came from, so that the ordinary programs
//! meet it again: run by BPF_PROG_TEST_RUN alone, never attached.

use aya_ebpf::{
    helpers::{bpf_skb_change_tail, bpf_skb_store_bytes},
    macros::classifier,
    programs::TcContext,
};
use kproxy_common::{
    counters::NO_SERVICE,
    drop_reason::DropReason,
    fragment::{INJECTED_REST, Injection},
};

use crate::{kernel::plus, maps::INJECTED, verdict::Verdict};

/// Puts the rest of a large packet behind its beginning.
#[inline(always)]
fn complete(ctx: &TcContext, more: u32) -> Option<()> {
    let skb = ctx.skb.skb;
    let head = ctx.len();
    let rest = INJECTED.get_ptr(0)?;
    let more = plus::<1>(u64::from(more.wrapping_sub(1)) & (INJECTED_REST as u64 - 1)) as u32;
    // SAFETY: the helper checks the length.
    if unsafe { bpf_skb_change_tail(skb, head + more, 0) } != 0 {
        return None;
    }
    // SAFETY: a live element that is as long as `more` at least; the helper checks where it goes.
    let stored = unsafe { bpf_skb_store_bytes(skb, head, rest.cast(), more, 0) };
    (stored == 0).then_some(())
}

/// 0: done. The packet that the program runs on is thrown away by the kernel.
#[classifier]
fn kp_inject(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: plain reads of a live context.
    let ([ingress, more, lost, ..], device) = unsafe { ((*skb).cb, (*skb).ifindex) };
    let Injection { ingress, more, lost } = Injection { ingress, more, lost };
    if lost != 0 {
        let is_alone = lost == DropReason::FragmentAlone as u32;
        let reason = if is_alone { DropReason::FragmentAlone } else { DropReason::FragmentLimit };
        return Verdict::drop(NO_SERVICE, reason).action();
    }
    if more != 0 && complete(&ctx, more).is_none() {
        return -1;
    }
    // BPF_F_INGRESS is 1.
    match ctx.clone_redirect(device, u64::from(ingress)) {
        Ok(()) => 0,
        Err(error) => error as i32,
    }
}
