//! What the daemon runs a program on by BPF_PROG_TEST_RUN: a packet with so many elements in it.

use aya_ebpf::programs::TcContext;

use crate::{kernel::now, skb::at};

/// Looks at each element, by its number and the time. `count_at`: where the packet says how many there are, `most` at the
/// most. Returns what the program does, which is of no interest.
#[inline(always)]
pub(crate) fn each(
    ctx: &TcContext,
    count_at: usize,
    most: usize,
    look: impl Fn(&TcContext, u32, u32),
) -> i32 {
    let Some(count) = at::<u32>(ctx, count_at).copied() else { return 0 };
    let (now, mut number) = (now(), 0);
    while number < most as u32 {
        if number >= count {
            break;
        }
        look(ctx, number, now);
        number += 1;
    }
    0
}
