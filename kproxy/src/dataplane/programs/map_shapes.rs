//! What the pinned maps must look like, and whether those that are there do.

use std::{io, mem::size_of, path::Path};

use aya::maps::{MapError, MapInfo, MapType, lpm_trie::Key};
use kproxy_common::{
    abi::map,
    affinity::{AffinityKey, AffinityValue},
    config::{Config, Uplink},
    counters::{DropKey, ServiceCounters},
    filter,
    flow::{FlowKey, FlowValue},
    load::LoadKey,
    ranges::RangeData,
    service::{FrontendKey, FrontendValue, Name, Service, Slot},
    socket::SocketState,
};

use crate::{
    dataplane::{
        error::{Error, MapShape},
        settings::Settings,
    },
    model::Problem,
};

/// A map as it must be.
pub(super) struct PinnedMap {
    pub(super) name: &'static str,
    shape: MapShape,
    /// Capacity asked for, and the option that says so; `None`: the object's own.
    pub(super) capacity: Option<(u32, &'static str)>,
}

/// Every map that is pinned.
pub(super) fn all(settings: &Settings) -> [PinnedMap; map::PINNED.len()] {
    let services = Some((settings.max_services, "--max-services"));
    let names = Some((settings.max_services.div_ceil(2), "--max-services"));
    let frontends = Some((settings.max_frontends, "--max-frontends"));
    let slots = Some((settings.max_slots, "--max-slots"));
    let flows = Some((settings.max_flows, "--max-flows"));
    let affinity = Some((settings.max_affinity, "--max-affinity"));
    let ranges = Some((settings.max_ranges, "--max-ranges"));
    [
        of::<FrontendKey, FrontendValue>(map::FRONTENDS, MapType::Hash, frontends),
        of::<u32, Service>(map::SERVICES, MapType::Array, services),
        of::<u32, Slot>(map::SLOTS, MapType::Array, slots),
        with_entries(filter::WORDS, of::<u32, u64>(map::FILTER, MapType::Array, None)),
        of::<u32, Config>(map::CONFIG, MapType::Array, None),
        of::<u32, Uplink>(map::UPLINKS, MapType::Hash, None),
        of::<u32, Name>(map::NAMES, MapType::Hash, names),
        of::<FlowKey, FlowValue>(map::FLOWS, MapType::Hash, flows),
        of::<u32, [u8; 8]>(map::FLOW_FILTER, MapType::Array, None),
        of::<u32, ServiceCounters>(map::COUNTERS, MapType::PerCpuArray, services),
        of::<DropKey, u64>(map::DROPS, MapType::PerCpuHash, None),
        of::<u32, SocketState>(map::SOCKETS, MapType::SkStorage, None),
        of::<AffinityKey, AffinityValue>(map::AFFINITY, MapType::LruHash, affinity),
        of::<LoadKey, i64>(map::LOAD, MapType::Hash, None),
        of::<u64, u32>(map::NETNS, MapType::Hash, None),
        of::<Key<RangeData>, u32>(map::RANGES, MapType::LpmTrie, ranges),
    ]
}

const fn of<K, V>(
    name: &'static str,
    kind: MapType,
    capacity: Option<(u32, &'static str)>,
) -> PinnedMap {
    let (key, value) = (size_of::<K>(), size_of::<V>());
    PinnedMap { name, shape: MapShape { kind: Some(kind), key, value, entries: None }, capacity }
}

/// A map whose capacity the programs know.
const fn with_entries(entries: u32, map: PinnedMap) -> PinnedMap {
    PinnedMap { shape: MapShape { entries: Some(entries), ..map.shape }, ..map }
}

impl PinnedMap {
    /// The map pinned at `path`, if there is one; refuses one of another layout.
    pub(super) fn find(&self, path: &Path) -> Result<Option<MapInfo>, Error> {
        let info = match MapInfo::from_pin(path) {
            Ok(info) => info,
            Err(MapError::SyscallError(call))
                if call.io_error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::of_pin("open", path)(error)),
        };
        let found = MapShape {
            kind: info.map_type().ok(),
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            entries: self.shape.entries.map(|_| info.max_entries()),
        };
        if found == self.shape {
            return Ok(Some(info));
        }
        Err(Error::Layout { path: path.to_owned(), found, wanted: self.shape })
    }

    /// What to say of a pinned map whose size is not the one asked for.
    pub(super) fn size_notice(&self, pinned: &MapInfo) -> Option<Problem> {
        let (wanted, option) = self.capacity?;
        let pinned = pinned.max_entries();
        (pinned != wanted).then(|| {
            Problem::new(
                format!("map {}", self.name),
                format!(
                    "it is in use with room for {pinned} entries and keeps that size, {option} or \
                     its default asks for {wanted}"
                ),
                "to change the size, stop kproxy, run `kproxy cleanup` and start it again",
            )
        })
    }
}
