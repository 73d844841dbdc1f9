//! What the data path is opened with.

use std::{collections::BTreeMap, path::PathBuf};

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
    /// Capacity that the SERVICES map grows to at most, in entries (two a service port).
    pub max_services: u32,
    /// Capacity that the SLOTS map grows to at most.
    pub max_slots: u32,
    /// Capacity that the FRONTENDS map grows to at most.
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
            max_services: abi::MOST_SERVICES,
            max_slots: abi::MOST_SLOTS,
            max_frontends: abi::MOST_FRONTENDS,
            max_flows: abi::DEFAULT_FLOWS,
            max_affinity: abi::DEFAULT_AFFINITY,
            max_ranges: abi::DEFAULT_RANGES,
        }
    }

    /// Capacities that maps grow to at most.
    pub(super) const fn most(&self) -> Sizes {
        Sizes { services: self.max_services, slots: self.max_slots, frontends: self.max_frontends }
    }

    /// Capacities that maps grow to at most, by name.
    pub(crate) fn map_limits(&self) -> BTreeMap<&'static str, u32> {
        let most = self.most();
        map::PINNED.into_iter().filter_map(|map| Some((map, most.of(map)?))).collect()
    }

    /// Capacities that they begin with.
    fn first(&self) -> Sizes {
        let most = self.most();
        Sizes {
            services: most.services.min(abi::FIRST_SERVICES),
            slots: most.slots.min(abi::FIRST_SLOTS),
            frontends: most.frontends.min(abi::FIRST_FRONTENDS),
        }
    }

    /// Capacity of a new map; `None`: the BPF object says it.
    pub(super) fn capacity(&self, map: &str) -> Option<u32> {
        match map {
            map::FLOWS => Some(self.max_flows),
            map::UNASSURED => Some(unassured::elements(self.max_flows)),
            map::AFFINITY => Some(self.max_affinity),
            map::RANGES => Some(self.max_ranges),
            _ => self.first().of(map),
        }
    }

    /// Capacity that a map may have.
    pub(super) fn most_of(&self, map: &str) -> Option<u32> {
        self.most().of(map).or_else(|| self.capacity(map))
    }
}

/// Capacities of the maps that grow with what is wanted of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sizes {
    /// Entries of SERVICES and COUNTERS, two a service port; NAMES has half as many.
    pub(crate) services: u32,
    /// Entries of SLOTS.
    pub(crate) slots: u32,
    /// Entries of FRONTENDS.
    pub(crate) frontends: u32,
}

impl Sizes {
    /// Capacity of a map; `None`: it does not grow.
    pub(super) fn of(&self, map: &str) -> Option<u32> {
        match map {
            map::SERVICES | map::COUNTERS => Some(self.services),
            map::NAMES => Some(self.services.div_ceil(2)),
            map::SLOTS => Some(self.slots),
            map::FRONTENDS => Some(self.frontends),
            _ => None,
        }
    }
}

/// The option of the command that sets [`Settings::most_of`] a map.
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
            assert_eq!(settings.most_of(map).is_some(), capacity_option(map).is_some(), "{map}");
            assert!(settings.capacity(map) <= settings.most_of(map), "{map}");
        }
    }
}
