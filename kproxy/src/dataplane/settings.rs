//! What the data path is opened with.

use std::path::PathBuf;

use kproxy_common::abi;

/// Where the data path is pinned and attached, and how large its maps are.
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
    /// Capacity of the AFFINITY map in clients.
    pub max_affinity: u32,
    /// Capacity of the RANGES map in ranges.
    pub max_ranges: u32,
}

impl Settings {
    /// The default sizes, and the cgroup root looked for.
    pub fn new(bpffs_root: impl Into<PathBuf>) -> Self {
        Self {
            bpffs_root: bpffs_root.into(),
            cgroup_root: None,
            max_services: abi::DEFAULT_SERVICES,
            max_slots: abi::DEFAULT_SLOTS,
            max_frontends: abi::DEFAULT_FRONTENDS,
            max_flows: abi::DEFAULT_FLOWS,
            max_affinity: abi::DEFAULT_AFFINITY,
            max_ranges: abi::DEFAULT_RANGES,
        }
    }
}
