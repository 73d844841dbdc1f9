//! What the pinned maps must look like, and whether those that are there do.

use std::{io, mem::size_of, path::Path};

use aya::maps::{MapError, MapInfo, MapType, lpm_trie::Key};
use kproxy_common::{
    abi::{EVENT_BYTES, LAYOUT_BYTES, map},
    affinity::{AffinityKey, AffinityValue},
    config::{Config, Uplink},
    counters::{DropKey, ServiceCounters},
    filter,
    flow::{FlowKey, FlowValue, unassured::Unassured},
    load::LoadKey,
    ranges::RangeData,
    service::{FrontendKey, FrontendValue, Name, Service, Slot},
    socket::SocketState,
    trace::Trace,
};

use crate::{
    dataplane::{
        error::{Error, MapShape},
        settings::{Settings, capacity_option},
    },
    model::Problem,
};

/// A map as it must be.
pub(super) struct PinnedMap {
    pub(super) name: &'static str,
    shape: MapShape,
}

/// Every map that is pinned.
pub(super) const ALL: [PinnedMap; map::PINNED.len()] = [
    of::<FrontendKey, FrontendValue>(map::FRONTENDS, MapType::Hash),
    of::<u32, Service>(map::SERVICES, MapType::Array),
    of::<u32, Slot>(map::SLOTS, MapType::Array),
    with_entries(filter::WORDS, of::<u32, u64>(map::FILTER, MapType::Array)),
    of::<u32, Config>(map::CONFIG, MapType::Array),
    of::<u32, Uplink>(map::UPLINKS, MapType::Hash),
    of::<u32, Name>(map::NAMES, MapType::Hash),
    of::<FlowKey, FlowValue>(map::FLOWS, MapType::Hash),
    of::<u32, Unassured>(map::UNASSURED, MapType::Array),
    with_entries(1, of::<u32, u64>(map::ASSURED, MapType::Array)),
    with_entries(filter::POD_FLOWS + 1, of::<u32, u64>(map::FLOW_FILTER, MapType::Array)),
    of::<u32, ServiceCounters>(map::COUNTERS, MapType::PerCpuArray),
    of::<DropKey, u64>(map::DROPS, MapType::PerCpuHash),
    of::<u32, SocketState>(map::SOCKETS, MapType::SkStorage),
    of::<AffinityKey, AffinityValue>(map::AFFINITY, MapType::LruHash),
    of::<LoadKey, i64>(map::LOAD, MapType::Hash),
    of::<u64, u32>(map::NETNS, MapType::Hash),
    of::<Key<RangeData>, u32>(map::RANGES, MapType::LpmTrie),
    with_entries(LAYOUT_BYTES / 8, of::<u32, u64>(map::LAYOUT, MapType::Array)),
    with_entries(1, of::<u32, Trace>(map::TRACE, MapType::Array)),
    with_entries(EVENT_BYTES, of::<(), ()>(map::EVENTS, MapType::RingBuf)),
    with_entries(1, of::<u32, u64>(map::UNTOLD, MapType::PerCpuArray)),
];

const fn of<K, V>(name: &'static str, kind: MapType) -> PinnedMap {
    let (key, value) = (size_of::<K>(), size_of::<V>());
    PinnedMap { name, shape: MapShape { kind: Some(kind), key, value, entries: None } }
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

    /// What to say of a pinned map whose size is not the one asked for. One that grows has any size up to
    /// that.
    pub(super) fn size_notice(&self, pinned: &MapInfo, settings: &Settings) -> Option<Problem> {
        let (wanted, option) = (settings.most_of(self.name)?, capacity_option(self.name)?);
        let pinned = pinned.max_entries();
        let is_right =
            pinned == wanted || pinned < wanted && settings.most().of(self.name).is_some();
        (!is_right).then(|| {
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
