//! The pinned maps, opened for reading.

use std::{fs, mem::size_of, os::fd::AsFd as _, path::Path};

use aya::maps::{Map, MapData, MapError};
use kproxy_common::{
    abi::map,
    config::Config,
    service::{Service, Slot},
};

use super::error::{OpenError, check_folders};
use crate::dataplane::{
    kernel::{
        bpf::{self, Access},
        memory::{Element, View},
    },
    maps::{Affinity, Counters, Drops, Flows, Frontends, Loads, Names, Netns, Ranges, Uplinks},
    programs::pins::{PinDirs, other_versions},
};

/// The pinned maps of this version, opened for reading.
pub(crate) struct Pins {
    dirs: PinDirs,
    pub(super) frontends: Frontends,
    pub(super) names: Names,
    pub(super) flows: Flows,
    pub(super) counters: Counters,
    pub(super) drops: Drops,
    pub(super) affinity: Affinity,
    pub(super) ranges: Ranges,
    pub(super) loads: Loads,
    pub(super) netns: Netns,
    pub(super) uplinks: Uplinks,
    pub(super) services: View<Service>,
    pub(super) slots: View<Slot>,
    pub(super) address_filter: View<u64>,
    config: View<Config>,
}

impl Pins {
    /// Opens the pins below `bpffs_root` (default of the CLI: `/sys/fs/bpf`).
    ///
    /// # Errors
    /// Says which sentence to show: see [`OpenError`].
    pub(crate) fn open(bpffs_root: &Path) -> Result<Self, OpenError> {
        let dirs = PinDirs::new(bpffs_root);
        check_folders(bpffs_root, &dirs)?;
        let open = Opener { dirs: &dirs };
        Ok(Self {
            frontends: open.typed(map::FRONTENDS)?,
            names: open.typed(map::NAMES)?,
            flows: open.typed(map::FLOWS)?,
            counters: open.typed(map::COUNTERS)?,
            drops: open.typed(map::DROPS)?,
            affinity: open.typed(map::AFFINITY)?,
            ranges: open.typed(map::RANGES)?,
            loads: open.typed(map::LOAD)?,
            netns: open.typed(map::NETNS)?,
            uplinks: open.typed(map::UPLINKS)?,
            services: open.view(map::SERVICES)?,
            slots: open.view(map::SLOTS)?,
            address_filter: open.view(map::FILTER)?,
            config: open.view(map::CONFIG)?,
            dirs,
        })
    }

    /// Other layout versions that have programs attached, as far as their pins tell.
    pub(crate) fn other_versions(&self) -> Vec<u32> {
        let is_attached = |version: &u32| {
            let links = PinDirs::of_version(self.dirs.base.clone(), *version).links;
            fs::read_dir(links).is_ok_and(|mut links| links.next().is_some())
        };
        other_versions(&self.dirs.base).into_iter().flatten().filter(is_attached).collect()
    }

    /// Where the pins are.
    pub(crate) const fn dirs(&self) -> &PinDirs {
        &self.dirs
    }

    /// The settings that the programs read.
    pub(crate) fn config(&self) -> Config {
        self.config.get(0).unwrap_or_default()
    }
}

/// Opens maps and checks that their layout is the one of this version.
pub(in crate::dataplane) struct Opener<'a> {
    pub(in crate::dataplane) dirs: &'a PinDirs,
}

impl Opener<'_> {
    pub(in crate::dataplane) fn data(
        &self,
        name: &str,
        access: Access,
    ) -> Result<MapData, OpenError> {
        let path = self.dirs.map(name);
        let fd = bpf::open_pin(&path, access).map_err(|error| OpenError::opening(&path, error))?;
        MapData::from_fd(fd).map_err(|error| OpenError::Other { path, source: error.into() })
    }

    pub(in crate::dataplane) fn typed<T>(&self, name: &str) -> Result<T, OpenError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let path = self.dirs.map(name);
        Map::from_map_data(self.data(name, Access::Read)?)
            .and_then(T::try_from)
            .map_err(|error| OpenError::Other { path, source: error.into() })
    }

    fn view<T: Element>(&self, name: &str) -> Result<View<T>, OpenError> {
        let path = self.dirs.map(name);
        // The kernel takes a shared mapping of a file opened for reading only for a private one,
        // which maps do not offer (do_mmap, mm/mmap.c). The mapping itself is for reading only.
        let data = self.data(name, Access::ReadWrite)?;
        let info = match data.info() {
            Ok(info) => info,
            Err(error) => return Err(OpenError::Other { path, source: error.into() }),
        };
        let (found, wanted) = (info.value_size() as usize, size_of::<T>());
        if found != wanted {
            return Err(OpenError::Layout { path, found, wanted });
        }
        View::of_map(data.fd().as_fd(), info.max_entries())
            .map_err(|error| OpenError::opening(&path, error))
    }
}
