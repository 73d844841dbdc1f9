//! Going on with the maps of another layout version, while its programs and those of this one are attached.
//!
//! Maps that mean the same are shared. Others are made anew and filled, field by field. Flows of the packet path
//! change while they are copied, and each of their packets must find its flow, so programs follow each other:
//!
//! ```text
//! open:   pins shared, or maps made and filled              their programs serve
//! attach: ours behind theirs at each device                 theirs serve; ours see what they let go
//!         flows copied
//!         theirs leave (config_flags::LEAVING)              old flows by theirs, new ones by ours
//!         flows copied
//!         theirs taken off, one by one                      all by ours
//!         flows copied, their pins removed
//! ```
//!
//! A crash at any point leaves programs that serve. A folder says that the maps are not all filled; the next start
//! begins again.

use std::{
    fs, io,
    mem::offset_of,
    ops::Range,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use kproxy_common::{
    abi::map,
    affinity::AffinityValue,
    config::{Config, config_flags},
    filter,
    flow::FlowValue,
};

use super::{
    copier::{Copier, Pass},
    layout::{Conversion, Description, Likeness},
    load::open_memory,
    pinning,
    pins::PinDirs,
};
use crate::dataplane::{
    error::Error,
    kernel::{
        bpf::{self, Access, RawMap},
        memory::Memory,
    },
};

/// Those that belong together: either all of them are shared, or none is.
const FLOWS: [&str; 4] = [map::FLOWS, map::UNASSURED, map::ASSURED, map::FLOW_FILTER];
/// Without those a flow's service is another one here.
const SERVICES: [&str; 2] = [map::NAMES, map::SERVICES];
/// Maps that no element is copied of: the kernel shows nobody the memory of sockets; ranges are written by
/// whoever plans Services, before anything is attached; bytes of the filter are set one by one.
const NOT_COPIED: [&str; 3] = [map::SOCKETS, map::RANGES, map::FLOW_FILTER];
/// Maps that programs write while they are copied.
const COPIED_AGAIN: [&str; 5] =
    [map::FLOWS, map::UNASSURED, map::ASSURED, map::AFFINITY, map::LOAD];

/// Going on with the maps of another version.
pub(crate) struct Takeover {
    theirs: PinDirs,
    ours: PinDirs,
    /// Where their settings say that they leave flows to others: place, bytes and bit.
    leaving: Option<(usize, usize, u64)>,
    /// Maps of ours beside theirs, that are filled from those.
    beside: Vec<(&'static str, Conversion)>,
    /// Whether the maps of ours are new.
    are_new: bool,
    flow_filter: FlowFilter,
    copiers: Vec<(&'static str, Copier)>,
}

/// What is known of the addresses that their flows send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FlowFilter {
    /// There is one map for both.
    Shared,
    /// What theirs says.
    Merged,
    /// Nothing: every address may be one.
    Unknown,
}

impl Takeover {
    /// Shares what means the same. `None`: they do not say what their maps mean.
    ///
    /// # Errors
    /// A pin cannot be opened, made or removed.
    pub(crate) fn begin(theirs: &PinDirs, ours: &PinDirs) -> Result<Option<Self>, Error> {
        let Some(other) = describe(theirs) else { return Ok(None) };
        let this = Description::of_this();
        let likeness: Vec<_> =
            map::handed_on().map(|name| (name, Likeness::of(&other, &this, name))).collect();
        let like = |name: &str| likeness.iter().find(|(of, _)| *of == name).map(|(_, like)| like);
        let goes_on = |name: &&str| like(name).is_some_and(|like| *like != Likeness::None);
        let are_known = SERVICES.iter().chain([&map::FLOWS]).all(goes_on);
        let is_same = |name: &&str| matches!(like(name), Some(Likeness::Same(_)));
        let are_shared = are_known && FLOWS.iter().all(is_same);

        let are_new = !ours.map(map::FLOWS).exists()
            || unfinished(&ours.version).exists() && is_empty_folder(&ours.links);
        if are_new {
            pinning::make_folder(&ours.maps)?;
            pinning::make_folder(&unfinished(&ours.version))?;
            for name in map::PINNED {
                pinning::remove(&ours.map(name))?;
            }
        }
        let (mut beside, mut lost) = (Vec::new(), Vec::new());
        let mut flow_filter = FlowFilter::Unknown;
        for (name, likeness) in &likeness {
            let (name, is_of_flows) = (*name, FLOWS.contains(name));
            let shares = matches!(likeness, Likeness::Same(_)) && (are_shared || !is_of_flows);
            if shares && share(theirs, ours, name)? {
                if name == map::FLOW_FILTER {
                    flow_filter = FlowFilter::Shared;
                }
                continue;
            }
            match likeness {
                Likeness::Same(_) if name == map::FLOW_FILTER => flow_filter = FlowFilter::Merged,
                Likeness::Same(by) | Likeness::Convertible(by)
                    if !NOT_COPIED.contains(&name) && (are_known || !is_of_flows) =>
                {
                    beside.push((name, by.clone()));
                }
                _ if are_new && ![map::RANGES, map::FLOW_FILTER].contains(&name) => lost.push(name),
                _ => {}
            }
        }
        if !lost.is_empty() {
            let maps = lost.join(", ");
            tracing::warn!(
                maps,
                "in another layout version these mean something else: they begin anew"
            );
        }
        Ok(Some(Self {
            theirs: theirs.clone(),
            ours: ours.clone(),
            leaving: other.flag("Config", "flags", "LEAVING"),
            beside,
            flow_filter,
            are_new,
            copiers: Vec::new(),
        }))
    }

    /// How many elements of theirs fit into a map that is to be made in its place; `None`: it is not one of
    /// those, or has gone.
    pub(crate) fn capacity(&self, name: &str) -> Option<u32> {
        self.beside.iter().find(|(of, _)| *of == name)?;
        Some(raw(&self.theirs, name).ok()?.entries())
    }

    /// Fills the maps of ours, which have been made meanwhile, from theirs.
    ///
    /// # Errors
    /// A map cannot be opened, read or written.
    pub(crate) fn fill(&mut self) -> Result<(), Error> {
        self.merge_flow_filter()?;
        for (name, conversion) in std::mem::take(&mut self.beside) {
            if !self.are_new && !COPIED_AGAIN.contains(&name) {
                continue;
            }
            let failed = |error| Error::of_map("convert", name)(error);
            let from = match raw(&self.theirs, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                from => from.map_err(failed)?,
            };
            let to = raw(&self.ours, name).map_err(failed)?;
            let mut copier = Copier::new(from, to, conversion, time(name)).map_err(failed)?;
            let Pass { written, lost } = copier.pass().map_err(failed)?;
            tracing::info!(map = name, written, lost, "filled from another layout version");
            if COPIED_AGAIN.contains(&name) {
                self.copiers.push((name, copier));
            }
        }
        Ok(())
    }

    /// Whether flows are in two maps, theirs and ours.
    pub(crate) fn is_apart(&self) -> bool {
        self.copiers.iter().any(|(name, _)| *name == map::FLOWS)
    }

    /// Copies what has changed since it was copied last.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub(crate) fn copy(&mut self) -> Result<(), Error> {
        // First, so that no packet misses its flow.
        self.merge_flow_filter()?;
        for (name, copier) in &mut self.copiers {
            let Pass { written, lost } = copier.pass().map_err(Error::of_map("convert", name))?;
            tracing::debug!(map = name, written, lost, "copied again");
        }
        Ok(())
    }

    /// Has their programs leave what belongs to no flow of theirs to those that come after them, if they can.
    ///
    /// # Errors
    /// Their settings cannot be written.
    pub(crate) fn leave(&self) -> Result<(), Error> {
        let Some((place, bytes, bit)) = self.leaving else { return Ok(()) };
        let failed = Error::of_map("change", map::CONFIG);
        let set = || {
            let config = raw(&self.theirs, map::CONFIG)?;
            let key = 0u32.to_ne_bytes();
            let mut value = config.get(&key)?.unwrap_or_default();
            let Some(flags) = value.get_mut(place..place + bytes) else { return Ok(()) };
            for (byte, bits) in flags.iter_mut().zip(bit.to_le_bytes()) {
                *byte |= bits;
            }
            config.set(&key, &value, false).map(drop)
        };
        set().map_err(failed)
    }

    /// Has the programs of this version stay, if they have been told to leave: another version has begun to take
    /// over, and this one takes over in turn.
    ///
    /// # Errors
    /// The settings cannot be opened.
    pub(crate) fn stay(&self) -> Result<(), Error> {
        let config: Memory<Config> = open_memory(&self.ours, map::CONFIG)?;
        let now = config.get(0).unwrap_or_default();
        if now.flags & config_flags::LEAVING != 0 {
            let flags = now.flags & !config_flags::LEAVING;
            let _exists = config.write(0, &Config { flags, ..now });
        }
        Ok(())
    }

    /// Sets what is set there.
    fn merge_flow_filter(&self) -> Result<(), Error> {
        let ours: Memory<u64> = open_memory(&self.ours, map::FLOW_FILTER)?;
        match self.flow_filter {
            FlowFilter::Shared => return Ok(()),
            FlowFilter::Merged => {}
            FlowFilter::Unknown => {
                for index in 0..filter::POD_FLOWS {
                    ours.change_bits(index, 0, u64::from_ne_bytes([filter::FRESH; 8]));
                }
                return Ok(());
            }
        }
        let theirs: Memory<u64> = open_memory(&self.theirs, map::FLOW_FILTER)?;
        for index in 0..theirs.len().min(ours.len()) {
            let Some(word) = theirs.get(index).filter(|word| *word != 0) else { continue };
            let mut bytes = word.to_ne_bytes();
            if index == filter::POD_FLOWS {
                // Ports have none of our programs yet.
                bytes[filter::POD_FLOWS_ANSWERED] = 0;
            } else {
                bytes = bytes.map(|byte| if byte == 0 { 0 } else { filter::FRESH });
            }
            ours.change_bits(index, 0, u64::from_ne_bytes(bytes));
        }
        Ok(())
    }
}

/// What another version says of its maps; `None`: nothing that this one understands.
fn describe(theirs: &PinDirs) -> Option<Description> {
    let layout: Memory<u64> = open_memory(theirs, map::LAYOUT).ok()?;
    let words = (0..layout.len()).filter_map(|index| layout.get(index));
    let text = words.flat_map(u64::to_ne_bytes).take_while(|byte| *byte != 0).collect();
    Description::parse(&String::from_utf8(text).ok()?)
}

/// Pins a map of theirs as one of ours, where there is none. Whether it is one now.
fn share(theirs: &PinDirs, ours: &PinDirs, name: &str) -> Result<bool, Error> {
    let (from, to) = (theirs.map(name), ours.map(name));
    // Theirs may be gone already, in a takeover that was nearly over.
    let map = match bpf::open_pin(&from, Access::ReadWrite) {
        Ok(map) => map,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(Error::of_pin("open", from)(error)),
    };
    if !to.exists() {
        bpf::pin(map.as_fd(), &to).map_err(Error::of_pin("pin", to))?;
        return Ok(true);
    }
    let id = |path: &Path| {
        MapInfo::from_pin(path).map(|info| info.id()).map_err(Error::of_pin("look at", path))
    };
    Ok(id(&from)? == id(&to)?)
}

fn raw(dirs: &PinDirs, name: &str) -> io::Result<RawMap> {
    RawMap::new(bpf::open_pin(&dirs.map(name), Access::ReadWrite)?)
}

/// Where the values of a map say how recent they are.
fn time(name: &str) -> Option<Range<usize>> {
    let (place, bytes) = match name {
        map::FLOWS => (offset_of!(FlowValue, last_seen), size_of::<u32>()),
        map::AFFINITY => (offset_of!(AffinityValue, last), size_of::<u64>()),
        _ => return None,
    };
    Some(place..place + bytes)
}

/// A folder below that of a version, until all maps are filled and all programs attached.
pub(super) fn unfinished(version: &Path) -> PathBuf {
    version.join("unfinished")
}

/// All is taken over.
///
/// # Errors
/// What says otherwise cannot be removed.
pub(super) fn finish(version: &Path) -> Result<(), Error> {
    let folder = unfinished(version);
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::of_pin("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn is_empty_folder(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
