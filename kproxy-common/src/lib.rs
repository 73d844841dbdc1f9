//! The contract between kproxy's BPF programs and its user space.
//!
//! Every byte layout that crosses the kernel border lives here, and so does the pure logic that
//! both sides run (slot choice, checksum deltas), where host tests can reach it.
//!
//! Layout rules: `repr(C)`, no implicit padding (zerocopy's `IntoBytes` refuses it at compile
//! time), no `bool`, `Option` or enum inside a shared struct (their layout is not promised between
//! the two targets). Addresses are 16 bytes (IPv4 as v4-mapped) and ports two bytes, both in
//! network byte order; everything else is in host byte order. A change of any layout raises
//! [`abi::ABI_VERSION`], which names the folder of the pins.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod affinity;
pub mod checksum;
pub mod config;
pub mod counters;
pub mod crc32c;
pub mod drop_reason;
pub mod filter;
pub mod flow;
pub mod fragment;
pub mod layouts;
pub mod load;
pub mod maglev;
pub mod net;
pub mod netns;
mod pod;
#[cfg(test)]
mod properties;
pub mod ranges;
pub mod select;
pub mod service;
pub mod socket;
pub mod source_port;
pub mod trace;
