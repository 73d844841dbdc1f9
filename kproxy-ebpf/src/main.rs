//! kproxy's BPF programs.
//!
//! ```text
//! hooks/socket.rs   connect, sendmsg, recvmsg, getpeername at the cgroup root
//! hooks/ingress.rs  from an uplink or a pod: frontend → backend
//! hooks/egress.rs   to an uplink or a pod: backend's answer → frontend's answer
//! hooks/node.rs     from a process of this node: frontend → backend; hooks/begun.rs opening packets
//! hooks/release.rs  sockets that close
//! hooks/inject.rs   fragments that were held back; run by the daemon, never attached
//! hooks/query.rs    what a UDP socket keeps; run by the daemon, never attached
//! packet.rs parse · extensions.rs IPv6 headers · fragments.rs ports of fragments ·
//! lookup.rs frontend → service · sources.rs who may · pick.rs service → backend ·
//! algorithm.rs which backend of the set · load.rs open connections of backends ·
//! flow.rs connection entries · snat.rs source ports · rewrite.rs headers and checksums ·
//! route.rs, forward.rs past the stack · refuse.rs resets, ICMP errors · icmp.rs errors about flows ·
//! stats.rs counters
//! ```
//! No tail calls and no loops without a small bound: the programs load on 5.10 and later.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod algorithm;
mod extensions;
mod flow;
mod forward;
mod fragments;
mod hooks;
mod icmp;
mod load;
mod lookup;
mod maps;
mod packet;
mod pick;
mod refuse;
mod rewrite;
mod route;
mod snat;
mod sources;
mod stats;

use kproxy_common::drop_reason::DropReason;

/// Passes the packet on, translated or untouched: TCX_NEXT = TC_ACT_UNSPEC, so that other programs
/// and the stack decide; also right for clsact.
pub(crate) const NEXT: i32 = -1;

/// The action of a program: a drop is counted here.
#[inline(always)]
pub(crate) fn action(service: u32, result: Result<i32, DropReason>) -> i32 {
    result.unwrap_or_else(|reason| {
        stats::count_drop(service, reason);
        aya_ebpf::bindings::TC_ACT_SHOT as i32
    })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
