//! Loads the BPF object: reuses or makes the pinned maps, loads and pins the programs.

use std::{fs, io, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, MapInfo, MapType, lpm_trie::Key},
    programs::{Program, ProgramError},
    util::KernelVersion,
};
use kproxy_common::{
    abi::{GLOBAL_KERNEL_FEATURES, kernel_feature, map, program},
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

use super::{
    Settings,
    attach::remove_file,
    error::{Error, chain},
    netns::Netns,
    pins::PinDirs,
    pod_flows::Filter,
    recount::Loads,
    writer::{KernelMaps, Parts},
};
use crate::model::Problem;

/// The loaded object.
pub(super) struct Loaded {
    /// Programs, loaded and pinned; its maps have been taken.
    pub(super) object: Ebpf,
    /// The maps that the writer owns.
    pub(super) maps: KernelMaps,
    /// The flow table.
    pub(super) flows: Flows,
    /// Open connections by backend.
    pub(super) loads: Loads,
    /// Source addresses by device.
    pub(super) uplinks: Uplinks,
    /// Network namespaces that the socket path serves or leaves alone.
    pub(super) netns: Netns,
    /// Addresses that flows send to.
    pub(super) filter: Filter,
    /// Pinned maps whose size is not the one asked for.
    pub(super) notices: Vec<Problem>,
}

/// What a map must look like.
struct Layout {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// Capacity asked for, and the option that says so; `None`: the object's own.
    capacity: Option<(u32, &'static str)>,
}

fn layouts(settings: &Settings) -> [Layout; 16] {
    let map = |name, kind, key, value, capacity| Layout { name, kind, key, value, capacity };
    let services = Some((settings.max_services, "--max-services"));
    let names = Some((settings.max_services.div_ceil(2), "--max-services"));
    let frontends = Some((settings.max_frontends, "--max-frontends"));
    let slots = Some((settings.max_slots, "--max-slots"));
    let flows = Some((settings.max_flows, "--max-flows"));
    let affinity = Some((settings.max_affinity, "--max-affinity"));
    let ranges = Some((settings.max_ranges, "--max-ranges"));
    let index = size_of::<u32>();
    [
        map(
            map::FRONTENDS,
            MapType::Hash,
            size_of::<FrontendKey>(),
            size_of::<FrontendValue>(),
            frontends,
        ),
        map(map::SERVICES, MapType::Array, index, size_of::<Service>(), services),
        map(map::SLOTS, MapType::Array, index, size_of::<Slot>(), slots),
        map(map::FILTER, MapType::Array, index, size_of::<u64>(), None),
        map(map::CONFIG, MapType::Array, index, size_of::<Config>(), None),
        map(map::UPLINKS, MapType::Hash, index, size_of::<Uplink>(), None),
        map(map::NAMES, MapType::Hash, index, size_of::<Name>(), names),
        map(map::FLOWS, MapType::Hash, size_of::<FlowKey>(), size_of::<FlowValue>(), flows),
        map(map::FLOW_FILTER, MapType::Array, index, size_of::<[u8; 8]>(), None),
        map(map::COUNTERS, MapType::PerCpuArray, index, size_of::<ServiceCounters>(), services),
        map(map::DROPS, MapType::PerCpuHash, size_of::<DropKey>(), size_of::<u64>(), None),
        map(map::SOCKETS, MapType::SkStorage, index, size_of::<SocketState>(), None),
        map(
            map::AFFINITY,
            MapType::LruHash,
            size_of::<AffinityKey>(),
            size_of::<AffinityValue>(),
            affinity,
        ),
        map(map::LOAD, MapType::Hash, size_of::<LoadKey>(), size_of::<i64>(), None),
        map(map::NETNS, MapType::Hash, size_of::<u64>(), size_of::<u32>(), None),
        map(map::RANGES, MapType::LpmTrie, size_of::<Key<RangeData>>(), size_of::<u32>(), ranges),
    ]
}

/// Loads `bytes` with the pins below `dirs`, making what is missing.
///
/// # Errors
/// A pinned map of another layout, a program that the verifier refuses, missing rights.
pub(super) fn load(bytes: &[u8], settings: &Settings, dirs: &PinDirs) -> Result<Loaded, Error> {
    let memlock = raise_memlock_limit();
    for dir in [&dirs.maps, &dirs.programs, &dirs.links] {
        make_dir(dir)?;
    }
    let layouts = layouts(settings);
    let mut notices = Vec::new();
    let mut is_new = true;
    for layout in &layouts {
        if let Some(info) = check_pin(&dirs.map(layout.name), layout)? {
            is_new = false;
            notices.extend(size_notice(layout, &info));
        }
    }

    let features = kernel_features();
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_KERNEL_FEATURES, &features, true);
    for layout in &layouts {
        loader.map_pin_path(layout.name, dirs.map(layout.name));
        if let Some((capacity, _)) = layout.capacity {
            loader.map_max_entries(layout.name, capacity);
        }
    }
    let mut object = loader.load(bytes).map_err(|error| match memlock {
        Some(limit) if is_eperm(&error) => Error::Memlock { why: chain(&error), limit },
        _ => Error::Load { why: chain(&error) },
    })?;
    load_programs(&mut object, dirs, memlock)?;
    let maps = take_maps(&mut object, is_new)?;
    let flows = typed(&mut object, map::FLOWS)?;
    let uplinks = typed(&mut object, map::UPLINKS)?;
    let loads = typed(&mut object, map::LOAD)?;
    let netns = typed(&mut object, map::NETNS)?;
    let filter = typed(&mut object, map::FLOW_FILTER)?;
    Ok(Loaded { object, maps, flows, loads, uplinks, netns, filter, notices })
}

/// Bits of [`kernel_feature`] that this kernel has; none when its version cannot be told.
fn kernel_features() -> u32 {
    let Ok(now) = KernelVersion::current() else { return 0 };
    kernel_feature::SINCE
        .into_iter()
        .filter(|(_, major, minor)| now >= KernelVersion::new(*major, *minor, 0))
        .fold(0, |features, (feature, ..)| features | feature)
}

/// Before kernel 5.11 maps and programs count against RLIMIT_MEMLOCK (commit d5299b67dd59 and its
/// series moved them to the memory cgroup). Returns the limit in bytes if there is one that counts
/// and cannot be lifted, which takes CAP_SYS_RESOURCE.
fn raise_memlock_limit() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    let locked = Resource::RLIMIT_MEMLOCK;
    if setrlimit(locked, RLIM_INFINITY, RLIM_INFINITY).is_ok()
        || KernelVersion::current().is_ok_and(|now| now >= KernelVersion::new(5, 11, 0))
    {
        return None;
    }
    let (_, most) = getrlimit(locked).ok()?;
    if let Err(error) = setrlimit(locked, most, most) {
        tracing::debug!(%error, "could not raise the limit of locked memory");
    }
    (most != RLIM_INFINITY).then_some(most)
}

/// Whether the kernel said EPERM, which is what it says when the limit is reached
/// (bpf_charge_memlock, kernel/bpf/syscall.c of 5.10).
fn is_eperm(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error() == Some(libc::EPERM))
}

pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|error| Error::Pin {
        what: "make",
        path: dir.to_owned(),
        error,
    })
}

/// The pinned map, if there is one; refuses one of another layout.
fn check_pin(path: &Path, layout: &Layout) -> Result<Option<MapInfo>, Error> {
    let info = match MapInfo::from_pin(path) {
        Ok(info) => info,
        Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(MapError::SyscallError(call)) => {
            return Err(Error::Pin { what: "open", path: path.to_owned(), error: call.io_error });
        }
        Err(error) => {
            return Err(Error::Layout { path: path.to_owned(), why: error.to_string() });
        }
    };
    let found = (info.map_type().ok(), info.key_size() as usize, info.value_size() as usize);
    if found == (Some(layout.kind), layout.key, layout.value) {
        return Ok(Some(info));
    }
    let why = format!(
        "its type is {:?} with keys of {} and values of {} bytes instead of {:?}, {} and {}",
        found.0, found.1, found.2, layout.kind, layout.key, layout.value
    );
    Err(Error::Layout { path: path.to_owned(), why })
}

fn size_notice(layout: &Layout, info: &MapInfo) -> Option<Problem> {
    let (wanted, option) = layout.capacity?;
    let pinned = info.max_entries();
    (pinned != wanted).then(|| {
        Problem::new(
            format!("map {}", layout.name),
            format!(
                "it is in use with room for {pinned} entries and keeps that size, {option} or \
                     its default asks for {wanted}"
            ),
            "to change the size, stop kproxy, run `kproxy cleanup` and start it again",
        )
    })
}

fn load_programs(object: &mut Ebpf, dirs: &PinDirs, memlock: Option<u64>) -> Result<(), Error> {
    for name in program::CGROUP.into_iter().chain([program::RELEASE]).chain(program::DEVICE) {
        let program = object
            .program_mut(name)
            .ok_or_else(|| Error::Load { why: format!("it has no program {name}") })?;
        let loaded = match &mut *program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.map_err(|error| load_error(name, error, memlock))?;
        pin_program(program, name, dirs)?;
    }
    Ok(())
}

fn load_error(name: &str, error: ProgramError, memlock: Option<u64>) -> Error {
    /// Lines of the verifier's log worth showing: the refused instruction and what led to it.
    const LINES: usize = 25;
    match (error, memlock) {
        (ProgramError::LoadError { io_error, .. }, Some(limit)) if is_eperm(&io_error) => {
            Error::Memlock { why: format!("program {name}: {io_error}"), limit }
        }
        (ProgramError::LoadError { io_error, verifier_log }, _) => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            Error::Verifier {
                program: name.to_owned(),
                why: io_error,
                log: lines[lines.len().saturating_sub(LINES)..].join("\n"),
            }
        }
        (other, _) => Error::Load { why: format!("program {name}: {}", chain(&other)) },
    }
}

/// Pins under another name first: the pin of the running version is replaced in one step.
fn pin_program(program: &mut Program, name: &str, dirs: &PinDirs) -> Result<(), Error> {
    let path = dirs.programs.join(name);
    let fresh = dirs.programs.join(format!("{name}~"));
    let failed = |error| Error::Pin { what: "pin", path: path.clone(), error };
    remove_file(&fresh).map_err(failed)?;
    program.pin(&fresh).map_err(|error| failed(io::Error::other(chain(&error))))?;
    fs::rename(&fresh, &path).map_err(failed)
}

pub(super) type Flows = HashMap<MapData, FlowKey, FlowValue>;
pub(super) type Uplinks = HashMap<MapData, u32, Uplink>;

pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &str,
) -> Result<T, Error> {
    let map = object
        .take_map(name)
        .ok_or_else(|| Error::Load { why: format!("it has no map {name}") })?;
    T::try_from(map).map_err(|error| Error::Load { why: format!("map {name}: {error}") })
}

fn take_maps(object: &mut Ebpf, is_new: bool) -> Result<KernelMaps, Error> {
    fn array(object: &mut Ebpf, name: &str) -> Result<MapData, Error> {
        match object.take_map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => Err(Error::Load { why: format!("it has no array map {name}") }),
        }
    }
    let parts = Parts {
        frontends: typed(object, map::FRONTENDS)?,
        names: typed(object, map::NAMES)?,
        counters: typed(object, map::COUNTERS)?,
        drops: typed(object, map::DROPS)?,
        ranges: typed(object, map::RANGES)?,
        services: array(object, map::SERVICES)?,
        slots: array(object, map::SLOTS)?,
        filter: array(object, map::FILTER)?,
        config: array(object, map::CONFIG)?,
        is_new,
    };
    let filter_words = parts.filter.info().map_or(0, |info| info.max_entries());
    if filter_words != filter::WORDS {
        let why = format!("{filter_words} words instead of {}", filter::WORDS);
        return Err(Error::Load { why: format!("map {} has {why}", map::FILTER) });
    }
    KernelMaps::new(parts).map_err(Error::Maps)
}
