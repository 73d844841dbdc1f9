//! The maps as types: which keys and values each has. The names are those of
//! [`kproxy_common::abi::map`].

use std::{io, os::fd::AsFd as _};

use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuHashMap, RingBuf};
use ipnet::IpNet;
use kproxy_common::{
    affinity::{AffinityKey, AffinityValue},
    config::Uplink,
    counters::{DropKey, ServiceCounters},
    flow::{FlowKey, FlowValue},
    fragment::INJECTED_REST,
    load::LoadKey,
    ranges::RangeData,
    service::{FrontendKey, FrontendValue, Name},
};

use super::{
    codec,
    error::Error,
    kernel::memory::{Element, Memory},
};

pub(super) type Frontends = HashMap<MapData, FrontendKey, FrontendValue>;
pub(super) type Names = HashMap<MapData, u32, Name>;
pub(super) type Uplinks = HashMap<MapData, u32, Uplink>;
pub(super) type Flows = HashMap<MapData, FlowKey, FlowValue>;
pub(super) type FlowFilter = Array<MapData, [u8; 8]>;
pub(super) type Counters = PerCpuArray<MapData, ServiceCounters>;
pub(super) type Drops = PerCpuHashMap<MapData, DropKey, u64>;
pub(super) type Affinity = HashMap<MapData, AffinityKey, AffinityValue>;
pub(super) type Ranges = LpmTrie<MapData, RangeData, u32>;
pub(super) type Loads = HashMap<MapData, LoadKey, i64>;
pub(super) type Netns = HashMap<MapData, u64, u32>;
pub(super) type EarlyNotes = RingBuf<MapData>;
pub(super) type InjectedRest = Array<MapData, [u8; INJECTED_REST]>;

/// The maps that the writer of Services owns.
pub(super) struct ServiceMaps {
    pub(super) frontends: Frontends,
    pub(super) names: Names,
    pub(super) counters: Counters,
    pub(super) drops: Drops,
    pub(super) ranges: Ranges,
    pub(super) services: MapData,
    pub(super) slots: MapData,
    pub(super) address_filter: MapData,
    pub(super) config: MapData,
    /// They were made just now.
    pub(super) are_new: bool,
}

/// The maps that the sweeper reads and puts right.
pub(super) struct SweptMaps {
    pub(super) flows: Flows,
    pub(super) loads: Loads,
    pub(super) assured: Memory<u64>,
    pub(super) flow_filter: Memory<u64>,
    pub(super) uplinks: Uplinks,
}

/// Maps an array into memory.
///
/// # Errors
/// The kernel refused.
pub(super) fn memory<T: Element>(name: &'static str, map: &MapData) -> Result<Memory<T>, Error> {
    let info = map.info().map_err(Error::of_map("look at", name))?;
    Memory::of_map(map.fd().as_fd(), info.max_entries())
        .map_err(Error::of_map("map into memory", name))
}

/// Every source range with its service port. Tries know no batches before 5.13; there are few ranges.
///
/// # Errors
/// Those of `BPF_MAP_GET_NEXT_KEY`.
pub(super) fn read_ranges(ranges: &Ranges) -> io::Result<Vec<(u32, IpNet)>> {
    let mut all = Vec::new();
    for key in ranges.keys() {
        let key = key.map_err(io::Error::other)?;
        all.extend(codec::decode_range(key.prefix_len(), &key.data()));
    }
    Ok(all)
}
