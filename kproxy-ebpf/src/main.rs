//! kproxy's BPF programs.
//!
//! ```text
//! hooks/socket.rs   connect, sendmsg, recvmsg, getpeername at the cgroup root
//! hooks/ingress.rs  uplink ingress: frontend → backend
//! hooks/egress.rs   uplink egress: backend's answer → frontend's answer
//! hooks/query.rs    what a UDP socket keeps; run by the daemon, never attached
//! packet.rs parse · lookup.rs frontend → service · sources.rs who may · pick.rs service → backend ·
//! flow.rs connection entries · rewrite.rs headers and checksums · stats.rs counters
//! ```
//! No tail calls and no loops without a small bound: the programs load on 5.10 and later.
#![no_std]
#![no_main]

mod flow;
mod hooks;
mod lookup;
mod maps;
mod packet;
mod pick;
mod rewrite;
mod sources;
mod stats;

/// What a tc program does with a packet. Passing is always "next": other programs still run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on, translated or untouched.
    Pass,
    /// Discard; the reason has been counted.
    Drop,
}

impl Verdict {
    /// TCX_NEXT = TC_ACT_UNSPEC (-1): the next program or the stack decides; also right for clsact.
    const NEXT: i32 = -1;

    fn action(self) -> i32 {
        match self {
            Self::Pass => Self::NEXT,
            Self::Drop => aya_ebpf::bindings::TC_ACT_SHOT as i32,
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
