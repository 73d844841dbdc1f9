//! The loaded programs and what they are attached to: the cgroup, uplinks, pod-facing ports, the
//! loopback device.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fs::{self, File},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapError},
};
use kproxy_common::abi::{map, program};

use super::{
    cgroup,
    devices::{self, TcMode},
    growth::Larger,
    load::{self, KeptMap},
    pinning,
    pins::PinDirs,
    place::{Attached, Place, Places},
    takeover,
};
use crate::{
    dataplane::{
        error::Error,
        kernel::bpf::{self, Access},
        maps::SweptMaps,
        settings::Sizes,
    },
    node::{self, Served},
};

/// The programs of this data path.
pub(crate) struct Attachments {
    object: Ebpf,
    /// Maps without pins.
    kept: Vec<KeptMap>,
    /// Those with one, so that they can be pinned again.
    pinned: Vec<KeptMap>,
    /// Links of the cgroup and of uplinks, by their pins: who takes a pin away takes no program off.
    links: Vec<HeldLink>,
    dirs: PinDirs,
    /// The cgroup folder asked for; `None`: the root is looked for.
    cgroup_root: Option<PathBuf>,
    /// Where the socket programs are attached.
    cgroup: Option<PathBuf>,
    /// Whether a program sees sockets close.
    sees_closes: bool,
    tc: TcMode,
    /// Places that the programs are attached to; `None`: not attached yet.
    places: Option<BTreeSet<Place>>,
    /// Whether pod-facing ports among them translate answers.
    answers_pods: bool,
}

/// A link that is held, whatever becomes of its pin.
struct HeldLink {
    pin: PathBuf,
    link: OwnedFd,
}

impl Attachments {
    /// The loaded `object`; nothing of it is attached by us yet, though earlier links may be there.
    ///
    /// # Errors
    /// A pinned map cannot be opened.
    pub(crate) fn new(
        object: Ebpf,
        kept: Vec<KeptMap>,
        dirs: PinDirs,
        cgroup_root: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let tc = TcMode::of_kernel();
        Ok(Self {
            object,
            kept,
            pinned: load::pinned_maps(&dirs)?,
            links: Vec::new(),
            dirs,
            cgroup_root,
            cgroup: None,
            sees_closes: false,
            tc,
            places: None,
            answers_pods: false,
        })
    }

    /// Pins maps and programs again whose pins somebody has taken away, or the BPF file system with them. Whether
    /// any was missing. The links that went with them are attached anew as after [`Self::sync_places`].
    ///
    /// # Errors
    /// No BPF file system can be mounted, or the kernel refused.
    pub(crate) fn repair_pins(&mut self) -> Result<bool, Error> {
        let is_missing = |path: &Path| !path.exists();
        let maps = self.pinned.iter().filter(|map| is_missing(&self.dirs.map(map.name))).count();
        let programs = load::pinned_programs().filter(|name| is_missing(&self.dirs.program(name)));
        let programs: Vec<_> = programs.collect();
        let links = self.links.iter().filter(|held| is_missing(&held.pin)).count();
        if maps == 0 && programs.is_empty() && links == 0 && self.dirs.links.exists() {
            return Ok(false);
        }
        node::bpffs::ensure(self.dirs.base.parent().unwrap_or(&self.dirs.base))?;
        for folder in [&self.dirs.maps, &self.dirs.programs, &self.dirs.links] {
            pinning::make_folder(folder)?;
        }
        for KeptMap { name, map } in &self.pinned {
            let path = self.dirs.map(name);
            if is_missing(&path) {
                bpf::pin(map.as_fd(), &path).map_err(Error::of_pin("pin", path))?;
            }
        }
        for name in &programs {
            load::pin_program(&mut self.object, name, &self.dirs)?;
        }
        for HeldLink { pin, link } in &self.links {
            if is_missing(pin) {
                bpf::pin(link.as_fd(), pin).map_err(Error::of_pin("pin", pin))?;
            }
        }
        let programs = programs.len();
        let folder = self.dirs.version.display();
        tracing::warn!(%folder, maps, programs, links, "pins were taken away by somebody; made again");
        Ok(true)
    }

    /// Pins the links that are in `old`, a folder as [`Self::version_folder`] that nobody else sees any more, and not
    /// in that.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) fn carry_over(&self, old: &File) -> Result<(), Error> {
        let links = self.dirs.links.file_name().unwrap_or_default();
        let old = Path::new("/proc/self/fd").join(old.as_raw_fd().to_string()).join(links);
        for entry in fs::read_dir(old).into_iter().flatten().flatten() {
            let pin = self.dirs.links.join(entry.file_name());
            if !pin.exists() {
                let link = bpf::open_pin(&entry.path(), Access::ReadWrite)
                    .map_err(Error::of_pin("open", entry.path()))?;
                bpf::pin(link.as_fd(), &pin).map_err(Error::of_pin("pin", pin))?;
            }
        }
        Ok(())
    }

    /// Holds the links that are pinned now, those to pods left out: there may be more of them than this process
    /// may have files open.
    fn hold_links(&mut self) {
        let entries = fs::read_dir(&self.dirs.links).into_iter().flatten().flatten();
        let pins = entries.map(|entry| entry.path()).filter(|pin| devices::is_held(pin));
        let held = |pin: PathBuf| {
            let link = bpf::open_pin(&pin, Access::ReadWrite).ok()?;
            Some(HeldLink { pin, link })
        };
        let mut links: Vec<_> = pins.filter_map(held).collect();
        // Those whose pins have been removed go with this, the way there before the way back.
        links.sort_by_key(|held| Reverse(devices::attach_order(&held.pin)));
        self.links = links;
    }

    /// Folder of this version's pins.
    pub(crate) fn version_folder(&self) -> &Path {
        &self.dirs.version
    }

    /// Folders of this version's pins.
    pub(crate) fn pin_folders(&self) -> [PathBuf; 3] {
        [&self.dirs.maps, &self.dirs.programs, &self.dirs.links].map(Clone::clone)
    }

    /// Loads the object with larger maps.
    ///
    /// # Errors
    /// The kernel has no memory for them, or refuses a program.
    pub(crate) fn load_larger(&self, bytes: &[u8], sizes: &Sizes) -> Result<Larger, Error> {
        Larger::load(bytes, sizes, &self.dirs, &self.kept)
    }

    /// Gives the links of the cgroup the programs of this object; those of devices get them with the next
    /// [`Self::sync_places`].
    ///
    /// # Errors
    /// The kernel refused: some links may go on with the programs that they have.
    pub(crate) fn replace(&mut self, object: Ebpf) -> Result<(), Error> {
        self.object = object;
        self.pinned = load::pinned_maps(&self.dirs)?;
        let Some(root) = self.cgroup.clone() else { return Ok(()) };
        cgroup::attach_all(&mut self.object, &self.dirs, &root)?;
        if self.sees_closes {
            cgroup::attach(&mut self.object, &self.dirs, &root, program::RELEASE)?;
        }
        Ok(())
    }

    /// Attaches the socket programs, or gives the links that are there the new programs.
    ///
    /// # Errors
    /// No cgroup v2 tree, or the kernel refused.
    pub(crate) fn attach_cgroup(&mut self) -> Result<(), Error> {
        let root = node::cgroup::root(self.cgroup_root.as_deref())?;
        cgroup::attach_all(&mut self.object, &self.dirs, &root)?;
        self.cgroup = Some(root);
        self.hold_links();
        Ok(())
    }

    /// Takes the socket programs off the cgroup. Whether there were any.
    ///
    /// # Errors
    /// A link could not be removed.
    pub(crate) fn detach_cgroup(&mut self) -> Result<bool, Error> {
        let were_there = cgroup::detach(&self.dirs)?;
        (self.cgroup, self.sees_closes) = (None, false);
        self.hold_links();
        Ok(were_there)
    }

    /// Whether the cgroup has a program that sees sockets close, of this run or an earlier one.
    pub(crate) fn has_release(&self) -> bool {
        self.dirs.cgroup_link(program::RELEASE).exists()
    }

    /// Whether a program of sockets is attached, of this run or an earlier one.
    pub(crate) fn has_cgroup(&self) -> bool {
        program::CGROUP.into_iter().any(|name| self.dirs.cgroup_link(name).exists())
    }

    /// Attaches the program that sees sockets close. `None`: it is attached, or no socket program is.
    pub(crate) fn attach_release(&mut self) -> Option<Result<(), Error>> {
        let root = self.cgroup.as_deref().filter(|_| !self.sees_closes)?;
        let attached = cgroup::attach(&mut self.object, &self.dirs, root, program::RELEASE);
        self.sees_closes = attached.is_ok();
        self.hold_links();
        Some(attached.map(drop))
    }

    /// Places that the programs are attached to; `None`: not attached yet.
    pub(crate) const fn places(&self) -> Option<&BTreeSet<Place>> {
        self.places.as_ref()
    }

    /// Attaches the socket programs that have been taken off since they were attached.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) fn repair_cgroup(&mut self) -> Result<(), Error> {
        let Some(root) = self.cgroup.clone() else { return Ok(()) };
        let mut any = false;
        let release = self.sees_closes.then_some(program::RELEASE);
        for name in program::CGROUP.into_iter().chain(release) {
            if cgroup::attach(&mut self.object, &self.dirs, &root, name)? == Attached::Anew {
                any = true;
                let cgroup = root.display();
                tracing::warn!(program = name, %cgroup, "was taken off by somebody; attached again");
            }
        }
        if any {
            self.hold_links();
        }
        Ok(())
    }

    /// Devices that have programs, as far as pins tell.
    pub(crate) fn served(&self) -> Served {
        devices::served(&self.dirs)
    }

    /// Whether an earlier run has attached a program to the loopback device, as far as pins tell.
    pub(crate) fn is_on_loopback(&self) -> bool {
        devices::is_on_loopback(&self.dirs)
    }

    /// Attaches the programs to these places, and to the loopback device when that is wanted, and
    /// takes them off all others. Every device is tried; returns what failed.
    pub(crate) fn sync_places(
        &mut self,
        mut wanted: BTreeSet<Place>,
        wants_loopback: bool,
        answers_pods: bool,
    ) -> Vec<Error> {
        let mut before = self.places.take().unwrap_or_default();
        if !with_loopback(&mut wanted, wants_loopback) {
            // An earlier run may have attached its filter.
            before.insert(Place::loopback());
        }
        let answered_pods = std::mem::replace(&mut self.answers_pods, answers_pods);
        let places = Places { wanted: &wanted, answers_pods, answered_pods };
        let errors = devices::sync(&mut self.object, &self.dirs, self.tc, places, &before);
        self.places = Some(wanted);
        self.hold_links();
        errors
    }

    /// Attaches the programs to places of [`Self::sync_places`] behind those of another version. Returns what failed.
    pub(crate) fn attach_behind(
        &mut self,
        mut wanted: BTreeSet<Place>,
        wants_loopback: bool,
        answers_pods: bool,
    ) -> Vec<Error> {
        with_loopback(&mut wanted, wants_loopback);
        let places = Places { wanted: &wanted, answers_pods, answered_pods: answers_pods };
        devices::attach_behind(&mut self.object, &self.dirs, self.tc, places)
    }

    /// Puts what [`Self::attach_behind`] has attached in the place of those before it. Returns what failed.
    pub(crate) fn come_first(
        &mut self,
        wanted: BTreeSet<Place>,
        wants_loopback: bool,
        answers_pods: bool,
    ) -> Vec<Error> {
        let mut before = wanted.clone();
        with_loopback(&mut before, wants_loopback);
        let places = Places { wanted: &before, answers_pods, answered_pods: answers_pods };
        let mut errors = devices::come_first(&self.dirs, self.tc, places);
        errors.extend(self.sync_places(wanted, wants_loopback, answers_pods));
        errors.extend(devices::detach_behind(self.tc, places));
        errors
    }

    /// All is taken over from other versions.
    ///
    /// # Errors
    /// What says otherwise cannot be removed.
    pub(crate) fn finish_takeover(&self) -> Result<(), Error> {
        takeover::finish(&self.dirs.version)
    }

    /// Loads a program that the daemon runs itself.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(crate) fn load_to_run(&mut self, name: &'static str) -> Result<OwnedFd, Error> {
        load::load_to_run(&mut self.object, name)
    }

    /// Opens the pinned maps that are swept, once more.
    ///
    /// # Errors
    /// One is not there, or of another kind.
    pub(in crate::dataplane) fn swept_maps(&self) -> Result<SweptMaps, Error> {
        Ok(SweptMaps {
            flows: load::open_map(&self.dirs, map::FLOWS)?,
            loads: load::open_map(&self.dirs, map::LOAD)?,
            assured: load::open_memory(&self.dirs, map::ASSURED)?,
            flow_filter: load::open_memory(&self.dirs, map::FLOW_FILTER)?,
            uplinks: load::open_map(&self.dirs, map::UPLINKS)?,
        })
    }

    /// Takes a map that is not pinned.
    ///
    /// # Errors
    /// It is of another kind, or was taken before.
    pub(crate) fn take_map<T: TryFrom<Map, Error = MapError>>(
        &mut self,
        name: &'static str,
    ) -> Result<T, Error> {
        load::take_map(&mut self.object, name)
    }

    /// Has devices get filters of the clsact qdisc, whatever the kernel can do.
    #[cfg(test)]
    pub(crate) const fn use_clsact(&mut self) {
        self.tc = TcMode::Clsact;
    }
}

/// Adds the loopback device to places if it is wanted, or takes it out. Whether it is.
fn with_loopback(places: &mut BTreeSet<Place>, is_wanted: bool) -> bool {
    if is_wanted {
        places.insert(Place::loopback());
    } else {
        places.remove(&Place::loopback());
    }
    is_wanted
}
