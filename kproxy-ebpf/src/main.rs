//! kproxy's BPF programs, in layers: each imports only what stands above it here, the two in one line
//! nothing of each other (`cargo xtask tidy` checks it).
//!
//! ```text
//! kernel.rs   clock, random numbers, features          skb.rs   packet memory, fields of the context
//! maps.rs     what programs and user space share       stats.rs counters and rate limits
//! trace.rs    what listeners are told                  udp_sockets.rs  whom a datagram is for
//! verdict.rs  what becomes of a packet
//! packet/     parse, header offsets, IPv6 extensions, rewrite, ICMP errors, the early pass
//! service/    frontend → service (lookup, source_ranges) → backend (pick, algorithm, load)
//! path/       route, redirect, forward past the stack, refuse (resets, ICMP errors)
//! flow/       table, filter, kind (which hook translates what), assured, unassured (who gives way), track,
//!             open, source_port, admit, fragments
//! hooks/      tc (what programs at devices share): ingress, egress, node
//!             socket (connect, sendmsg, recvmsg, getpeername), release
//!             inject, sweep, udp_socket: run by the daemon, never attached
//! ```
//! No tail calls and no loops without a small bound: the programs load on 5.10 and later.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value is copied once more, on a stack of 512 bytes"
)]

mod flow;
mod hooks;
mod kernel;
mod maps;
mod packet;
mod path;
mod query;
mod service;
mod skb;
mod stats;
mod trace;
mod udp_sockets;
mod verdict;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
