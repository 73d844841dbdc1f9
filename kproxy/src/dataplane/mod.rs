//! The data path's user side: the BPF programs, their maps and their links.

mod codec;
mod memory;
pub mod pins;
pub mod read;
mod sweep;
mod sys;
mod writer;

pub use writer::{Fill, Report};

/// The BPF object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kproxy-ebpf"));
