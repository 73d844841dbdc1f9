//! Loads the BPF object: reuses or makes the pinned maps, loads and pins the programs.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError, MapInfo},
    programs::{Program, ProgramError, SchedClassifier},
};
use kproxy_common::abi::{
    GLOBAL_KERNEL_FEATURES, KERNEL_FEATURES_SINCE, kernel_feature, map, program,
};

use super::{map_shapes, memlock, pinning, pins::PinDirs};
use crate::{
    dataplane::{
        error::{Cause, Error, Missing, Rejection},
        kernel::{
            memory::{Element, Memory},
            release,
        },
        maps::{FlowFilter, Loads, Netns, ServiceMaps, Uplinks, memory},
        settings::Settings,
    },
    model::Problem,
};

/// The loaded object.
pub(crate) struct Loaded {
    /// Programs, loaded and pinned; its pinned maps have been taken.
    pub(crate) object: Ebpf,
    /// The maps that the writer owns.
    pub(crate) service_maps: ServiceMaps,
    /// Room of the flow table.
    pub(crate) flow_room: FlowRoom,
    /// Runs what forgets flows. Loaded with the others: later some maps that it names are closed.
    pub(crate) sweep: OwnedFd,
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

/// How many flows fit, as the pinned maps have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowRoom {
    /// Entries, two a connection.
    pub(crate) entries: u32,
    /// Connections that may give way.
    pub(crate) unassured: u32,
}

/// Loads `bytes` with the pins below `dirs`, making what is missing.
///
/// # Errors
/// A pinned map of another layout, a program that the verifier refuses, missing rights.
pub(crate) fn load(bytes: &[u8], settings: &Settings, dirs: &PinDirs) -> Result<Loaded, Error> {
    let memlock = memlock::raise_limit();
    for folder in [&dirs.maps, &dirs.programs, &dirs.links] {
        pinning::make_folder(folder)?;
    }
    let mut notices = Vec::new();
    let mut are_new = true;
    for map in &map_shapes::ALL {
        if let Some(pinned) = map.find(&dirs.map(map.name))? {
            are_new = false;
            notices.extend(map.size_notice(&pinned, settings));
        }
    }

    let features = kernel_features();
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_KERNEL_FEATURES, &features, true);
    for map in &map_shapes::ALL {
        loader.map_pin_path(map.name, dirs.map(map.name));
        if let Some(capacity) = settings.capacity(map.name) {
            loader.map_max_entries(map.name, capacity);
        }
    }
    let mut object = loader.load(bytes).map_err(|error| match memlock {
        Some(limit) if memlock::is_eperm(&error) => Error::Memlock { limit, source: error.into() },
        _ => Error::Load { source: error.into() },
    })?;
    for name in program::CGROUP.into_iter().chain([program::RELEASE]).chain(program::DEVICE) {
        load_and_pin(&mut object, name, dirs, memlock)?;
    }
    let sweep = load_to_run(&mut object, program::SWEEP)?;
    Ok(Loaded {
        sweep,
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

/// Bits of [`KERNEL_FEATURES_SINCE`] that this kernel has; none when its version cannot be told.
fn kernel_features() -> u32 {
    // The verifier knows the helper's type where the kernel has it.
    let has_mptcp = Path::new("/proc/sys/net/mptcp").exists();
    KERNEL_FEATURES_SINCE
        .into_iter()
        .filter(|(_, major, minor)| release::is_at_least(*major, *minor))
        .filter(|(feature, ..)| *feature != kernel_feature::MPTCP || has_mptcp)
        .fold(0, |features, (feature, ..)| features | feature)
}

fn load_and_pin(
    object: &mut Ebpf,
    name: &'static str,
    dirs: &PinDirs,
    memlock: Option<u64>,
) -> Result<(), Error> {
    let missing = || Error::Program { program: name, source: Missing.into() };
    let program = object.program_mut(name).ok_or_else(missing)?;
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|error| load_error(name, error, memlock))?;
    pinning::replace(&dirs.program(name), |path| program.pin(path))
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
            let log = lines[lines.len().saturating_sub(LINES)..].join("\n");
            Error::Verifier { program, source: Rejection { error: io_error, log } }
        }
        (other, _) => Error::Program { program, source: other.into() },
    }
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
