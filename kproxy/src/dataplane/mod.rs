//! The data path's user side: the BPF programs, their maps and their links.

mod codec;
mod error;
mod load;
mod memory;
pub mod pins;
pub mod read;
mod sys;
mod writer;

use std::path::PathBuf;

pub use error::Error;
pub use writer::{Fill, Report};

/// The BPF object that the build script made.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kproxy-ebpf"));

/// What the data path is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Folder of the BPF file system that holds the pins.
    pub bpffs_root: PathBuf,
    /// Folder of the cgroup v2 tree to attach to; `None`: the root is looked for.
    pub cgroup_root: Option<PathBuf>,
    /// Capacity of the SERVICES map in entries (two a service port).
    pub max_services: u32,
    /// Capacity of the SLOTS map.
    pub max_slots: u32,
    /// Capacity of the FRONTENDS map.
    pub max_frontends: u32,
    /// Capacity of the FLOWS map in entries (two a connection).
    pub max_flows: u32,
}
