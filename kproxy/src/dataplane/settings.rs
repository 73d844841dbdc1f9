//! What the data path is opened with.

use std::path::PathBuf;

use kproxy_common::{
    abi::{self, map},
    flow::unassured,
};

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

    /// Capacity of a map; `None`: the BPF object says it.
    pub(super) fn capacity(&self, map: &str) -> Option<u32> {
        match map {
            map::SERVICES | map::COUNTERS => Some(self.max_services),
            map::NAMES => Some(self.max_services.div_ceil(2)),
            map::SLOTS => Some(self.max_slots),
            map::FRONTENDS => Some(self.max_frontends),
            map::FLOWS => Some(self.max_flows),
            map::UNASSURED => Some(unassured::elements(self.max_flows)),
            map::AFFINITY => Some(self.max_affinity),
            map::RANGES => Some(self.max_ranges),
            _ => None,
        }
    }
}

/// The option of the command that sets [`Settings::capacity`] of a map.
pub(super) fn capacity_option(map: &str) -> Option<&'static str> {
    match map {
        map::SERVICES | map::COUNTERS | map::NAMES => Some("--max-services"),
        map::SLOTS => Some("--max-slots"),
        map::FRONTENDS => Some("--max-frontends"),
        map::FLOWS | map::UNASSURED => Some("--max-flows"),
        map::AFFINITY => Some("--max-affinity"),
        map::RANGES => Some("--max-ranges"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_that_can_be_set_has_an_option() {
        let settings = Settings::new("/sys/fs/bpf");
        for map in map::PINNED {
            assert_eq!(settings.capacity(map).is_some(), capacity_option(map).is_some(), "{map}");
        }
    }
}
