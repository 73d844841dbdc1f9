//! Loads the BPF object: reuses or makes the pinned maps, loads and pins the programs.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError, MapInfo},
    programs::{Program, ProgramError, SchedClassifier},
};
use kproxy_common::abi::{
    GLOBAL_KERNEL_FEATURES, KERNEL_FEATURES_SINCE, kernel_feature, map, program,
};

use super::{layout, map_shapes, memlock, pinning, pins::PinDirs};
use crate::{
    dataplane::{
        error::{Cause, Error, Missing, Rejection},
        kernel::{
            bpf::{self, Access},
            memory::{Element, Memory},
            release,
        },
        maps::{FlowFilter, Loads, Netns, ServiceMaps, Uplinks, memory},
        settings::Settings,
    },
    model::Problem,
};

/// Programs that the daemon runs itself.
const RUN: [&str; 4] = [program::SWEEP, program::ADOPT, program::UDP_SOCKET, program::INJECT];
/// Sizes of large maps where nothing is kept in them.
const SMALL: [(&str, u32); 6] = [
    (map::SLOTS, 2),
    (map::SERVICES, 2),
    (map::COUNTERS, 2),
    (map::FLOWS, 2),
    (map::UNASSURED, 2),
    (map::AFFINITY, 64),
];

/// The loaded object.
pub(crate) struct Loaded {
    /// Programs, loaded and pinned; its pinned maps have been taken.
    pub(crate) object: Ebpf,
    /// The maps that the writer owns.
    pub(crate) service_maps: ServiceMaps,
    /// Room of the flow table.
    pub(crate) flow_room: FlowRoom,
    /// The maps that are not pinned and that other programs go on with.
    pub(crate) kept: Vec<KeptMap>,
    /// Runs what forgets flows. Loaded with the others: later some maps that it names are closed.
    pub(crate) sweep: OwnedFd,
    /// [`program::ADOPT`].
    pub(crate) adopt: OwnedFd,
    /// Open connections by backend.
    pub(crate) loads: Loads,
    /// Source addresses by device.
    pub(crate) uplinks: Uplinks,
    /// Network namespaces that the socket path serves or leaves alone.
    pub(crate) netns: Netns,
    /// Addresses that flows send to.
    pub(crate) flow_filter: FlowFilter,
    /// Pinned maps whose size is not the one asked for.
    pub(crate) notices: Vec<Problem>,
}

/// A map that is held, whatever becomes of its pin.
pub(crate) struct KeptMap {
    pub(super) name: &'static str,
    pub(super) map: OwnedFd,
}

/// How many flows fit, as the pinned maps have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowRoom {
    /// Entries, two a connection.
    pub(crate) entries: u32,
    /// Connections that may give way.
    pub(crate) unassured: u32,
}

/// Loads `bytes` with the pins below `dirs`, making what is missing. `capacity`: that of a new map, where it is not
/// the one of the settings.
///
/// # Errors
/// A pinned map of another layout, a program that the verifier refuses, missing rights.
pub(crate) fn load(
    bytes: &[u8],
    settings: &Settings,
    dirs: &PinDirs,
    capacity: impl Fn(&str) -> Option<u32>,
) -> Result<Loaded, Error> {
    let memlock = memlock::raise_limit();
    for folder in [&dirs.maps, &dirs.programs, &dirs.links] {
        pinning::make_folder(folder)?;
    }
    remove_leftovers(dirs)?;
    let mut notices = Vec::new();
    let mut are_new = true;
    for map in &map_shapes::ALL {
        if let Some(pinned) = map.find(&dirs.map(map.name))? {
            are_new = false;
            notices.extend(map.size_notice(&pinned, settings));
        }
    }
    let maps = map_shapes::ALL.iter().map(|map| MapSource {
        name: map.name,
        pin: Some(dirs.map(map.name)),
        capacity: capacity(map.name).or_else(|| settings.capacity(map.name)),
    });
    let object = load_maps(bytes, maps, memlock)?;
    load_programs(object, dirs, memlock, are_new, notices)
}

/// Where a map comes from.
pub(crate) struct MapSource {
    pub(super) name: &'static str,
    /// Its pin; where nothing is, it is made. `None`: it is made beside the live one.
    pub(super) pin: Option<PathBuf>,
    /// Capacity if it is made; `None`: the object says it.
    pub(super) capacity: Option<u32>,
}

impl MapSource {
    /// One of its own, with so many entries, beside the live one.
    pub(crate) const fn apart((name, entries): (&'static str, u32)) -> Self {
        Self { name, pin: None, capacity: Some(entries) }
    }
}

/// Removes what a crash has left while something was put in place.
fn remove_leftovers(dirs: &PinDirs) -> Result<(), Error> {
    let entries = fs::read_dir(&dirs.maps).map_err(Error::of_pin("open", &dirs.maps))?;
    let paths = entries.flatten().map(|entry| entry.path());
    for path in paths.filter(|path| pinning::is_fresh_name(path)) {
        pinning::remove(&path)?;
    }
    Ok(())
}

/// Has the verifier look at every program that kproxy attaches or runs, and forgets them again. How many those are.
///
/// # Errors
/// The first that the kernel refuses.
pub(crate) fn try_all(bytes: &[u8]) -> Result<usize, Error> {
    let memlock = memlock::raise_limit();
    let mut object = load_maps(bytes, SMALL.into_iter().map(MapSource::apart), memlock)?;
    let all: Vec<_> = pinned_programs().chain(RUN).collect();
    for name in &all {
        load_program(&mut object, name, memlock)?;
    }
    Ok(all.len())
}

/// Opens or makes the maps of the object. Programs are not loaded yet.
pub(crate) fn load_maps(
    bytes: &[u8],
    maps: impl Iterator<Item = MapSource>,
    memlock: Option<u64>,
) -> Result<Ebpf, Error> {
    let features = kernel_features();
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_KERNEL_FEATURES, &features, true);
    for MapSource { name, pin, capacity } in maps {
        if let Some(pin) = pin {
            loader.map_pin_path(name, pin);
        }
        if let Some(capacity) = capacity {
            loader.map_max_entries(name, capacity);
        }
    }
    loader.load(bytes).map_err(|error| match memlock {
        Some(limit) if memlock::is_eperm(&error) => Error::Memlock { limit, source: error.into() },
        _ => Error::Load { source: error.into() },
    })
}

/// The programs that are pinned.
pub(super) fn pinned_programs() -> impl Iterator<Item = &'static str> {
    program::CGROUP.into_iter().chain([program::RELEASE]).chain(program::DEVICE)
}

/// Pins a loaded program.
pub(super) fn pin_program(
    object: &mut Ebpf,
    name: &'static str,
    dirs: &PinDirs,
) -> Result<(), Error> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    pinning::replace(&dirs.program(name), |path| program.pin(path))
}

/// Loads and pins the programs of the object.
pub(super) fn load_programs(
    mut object: Ebpf,
    dirs: &PinDirs,
    memlock: Option<u64>,
    are_new: bool,
    notices: Vec<Problem>,
) -> Result<Loaded, Error> {
    for name in pinned_programs() {
        load_program(&mut object, name, memlock)?;
    }
    let sweep = load_to_run(&mut object, program::SWEEP)?;
    let adopt = load_to_run(&mut object, program::ADOPT)?;
    for name in pinned_programs() {
        pin_program(&mut object, name, dirs)?;
    }
    let pinned: Memory<u64> = memory(map::LAYOUT, &take_array(&mut object, map::LAYOUT)?)?;
    for (index, word) in (0..).zip(layout::words()) {
        let _exists = pinned.write(index, &word);
    }
    Ok(Loaded {
        sweep,
        adopt,
        kept: kept_maps(&object)?,
        service_maps: take_service_maps(&mut object, are_new)?,
        flow_room: FlowRoom {
            entries: max_entries(dirs, map::FLOWS)?,
            unassured: max_entries(dirs, map::UNASSURED)?,
        },
        loads: take_map(&mut object, map::LOAD)?,
        uplinks: take_map(&mut object, map::UPLINKS)?,
        netns: take_map(&mut object, map::NETNS)?,
        flow_filter: take_map(&mut object, map::FLOW_FILTER)?,
        object,
        notices,
    })
}

/// Every pinned map.
///
/// # Errors
/// One is not there.
pub(super) fn pinned_maps(dirs: &PinDirs) -> Result<Vec<KeptMap>, Error> {
    let pinned = map::PINNED.into_iter().map(|name| {
        let path = dirs.map(name);
        let map = bpf::open_pin(&path, Access::ReadWrite).map_err(Error::of_pin("open", path))?;
        Ok(KeptMap { name, map })
    });
    pinned.collect()
}

/// The maps that are not pinned and outlive the programs.
fn kept_maps(object: &Ebpf) -> Result<Vec<KeptMap>, Error> {
    let kept = map::UNPINNED.into_iter().chain([map::APART, map::BOUND]);
    kept.map(|name| {
        let map = object.map(name).ok_or_else(|| Error::of_map("keep", name)(Missing))?;
        let (Map::LruHashMap(data) | Map::RingBuf(data) | Map::Array(data)) = map else {
            return Err(Error::of_map("keep", name)(Missing));
        };
        let map = data.fd().as_fd().try_clone_to_owned().map_err(Error::of_map("keep", name))?;
        Ok(KeptMap { name, map })
    })
    .collect()
}

/// Bits of [`kernel_feature`] that this kernel has; none when its version cannot be told.
pub fn kernel_features() -> u32 {
    // The verifier knows the helper's type where the kernel has it.
    let has_mptcp = Path::new("/proc/sys/net/mptcp").exists();
    KERNEL_FEATURES_SINCE
        .into_iter()
        .filter(|(_, major, minor)| release::is_at_least(*major, *minor))
        .filter(|(feature, ..)| *feature != kernel_feature::MPTCP || has_mptcp)
        .fold(0, |features, (feature, ..)| features | feature)
}

fn missing(program: &'static str) -> Error {
    Error::Program { program, source: Missing.into() }
}

fn load_program(object: &mut Ebpf, name: &'static str, memlock: Option<u64>) -> Result<(), Error> {
    let loaded = match object.program_mut(name).ok_or_else(|| missing(name))? {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|error| load_error(name, error, memlock))
}

fn load_error(program: &'static str, error: ProgramError, memlock: Option<u64>) -> Error {
    /// Lines of the verifier's log worth showing: the refused instruction and what led to it.
    const LINES: usize = 25;
    match (error, memlock) {
        (ProgramError::LoadError { io_error, .. }, Some(limit)) if memlock::is_eperm(&io_error) => {
            Error::Memlock { limit, source: io_error.into() }
        }
        (ProgramError::LoadError { io_error, verifier_log }, _) => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            let Some(reason) = reason(&lines) else {
                // Not the verifier's doing.
                return Error::Program { program, source: io_error.into() };
            };
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
            tracing::warn!(program, "end of the verifier's log:\n{end}");
            Error::Verifier { program, source: Rejection { error: io_error, reason } }
        }
        (other, _) => Error::Program { program, source: other.into() },
    }
}

/// What the verifier's log gives as the reason: the last line that is none of its statistics.
fn reason(log: &[&str]) -> Option<String> {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let is_told = |line: &&&str| {
        !line.trim().is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
    };
    log.iter().rev().find(is_told).map(|line| (*line).to_owned())
}

/// Loads a program that the daemon runs itself: it is neither pinned nor attached.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn load_to_run(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let failed = |source: Cause| Error::Program { program: name, source };
    let program = object.program_mut(name).ok_or_else(|| failed(Missing.into()))?;
    let program: &mut SchedClassifier =
        program.try_into().map_err(|error: ProgramError| failed(error.into()))?;
    program.load().map_err(|error| load_error(name, error, None))?;
    let fd = program.fd().map_err(|error| failed(error.into()))?;
    fd.as_fd().try_clone_to_owned().map_err(|error| failed(error.into()))
}

fn max_entries(dirs: &PinDirs, name: &str) -> Result<u32, Error> {
    let path = dirs.map(name);
    let info = MapInfo::from_pin(&path).map_err(Error::of_pin("look at", path))?;
    Ok(info.max_entries())
}

/// Opens a pinned map once more, for somebody else.
///
/// # Errors
/// It is not there, or of another kind.
pub(crate) fn open_map<T: TryFrom<Map, Error = MapError>>(
    dirs: &PinDirs,
    name: &'static str,
) -> Result<T, Error> {
    const ACTION: &str = "open";
    MapData::from_pin(dirs.map(name))
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
        .map_err(Error::of_map(ACTION, name))
}

/// Opens a pinned array once more, as shared memory.
///
/// # Errors
/// It is not there, or cannot be mapped.
pub(crate) fn open_memory<T: Element>(
    dirs: &PinDirs,
    name: &'static str,
) -> Result<Memory<T>, Error> {
    let data = MapData::from_pin(dirs.map(name)).map_err(Error::of_map("open", name))?;
    memory(name, &data)
}

/// Takes a map out of the object.
///
/// # Errors
/// There is none of this name and kind.
pub(crate) fn take_map<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, Error> {
    const ACTION: &str = "take";
    let map = object.take_map(name).ok_or_else(|| Error::of_map(ACTION, name)(Missing))?;
    T::try_from(map).map_err(Error::of_map(ACTION, name))
}

fn take_service_maps(object: &mut Ebpf, are_new: bool) -> Result<ServiceMaps, Error> {
    Ok(ServiceMaps {
        frontends: take_map(object, map::FRONTENDS)?,
        names: take_map(object, map::NAMES)?,
        counters: take_map(object, map::COUNTERS)?,
        drops: take_map(object, map::DROPS)?,
        ranges: take_map(object, map::RANGES)?,
        services: take_array(object, map::SERVICES)?,
        slots: take_array(object, map::SLOTS)?,
        address_filter: take_array(object, map::FILTER)?,
        config: take_array(object, map::CONFIG)?,
        are_new,
    })
}

fn take_array(object: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match object.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(Error::of_map("take", name)(Missing)),
    }
}
