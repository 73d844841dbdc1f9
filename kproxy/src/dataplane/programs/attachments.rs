//! The loaded programs and what they are attached to: the cgroup, uplinks, pod-facing ports, the
//! loopback device.

use std::{collections::BTreeSet, os::fd::OwnedFd, path::PathBuf};

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
    pins::PinDirs,
    place::{Attached, Place, Places},
};
use crate::{
    dataplane::{error::Error, maps::SweptMaps, settings::Sizes},
    node::{self, Served},
};

/// The programs of this data path.
pub(crate) struct Attachments {
    object: Ebpf,
    /// Maps without pins.
    kept: Vec<KeptMap>,
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

impl Attachments {
    /// The loaded `object`; nothing of it is attached by us yet, though earlier links may be there.
    pub(crate) fn new(
        object: Ebpf,
        kept: Vec<KeptMap>,
        dirs: PinDirs,
        cgroup_root: Option<PathBuf>,
    ) -> Self {
        let tc = TcMode::of_kernel();
        Self {
            object,
            kept,
            dirs,
            cgroup_root,
            cgroup: None,
            sees_closes: false,
            tc,
            places: None,
            answers_pods: false,
        }
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
        Ok(())
    }

    /// Takes the socket programs off the cgroup. Whether there were any.
    ///
    /// # Errors
    /// A link could not be removed.
    pub(crate) fn detach_cgroup(&mut self) -> Result<bool, Error> {
        let were_there = cgroup::detach(&self.dirs)?;
        (self.cgroup, self.sees_closes) = (None, false);
        Ok(were_there)
    }

    /// Whether the cgroup has a program that sees sockets close, of this run or an earlier one.
    pub(crate) fn has_release(&self) -> bool {
        self.dirs.cgroup_link(program::RELEASE).exists()
    }

    /// Attaches the program that sees sockets close. `None`: it is attached, or no socket program is.
    pub(crate) fn attach_release(&mut self) -> Option<Result<(), Error>> {
        let root = self.cgroup.as_deref().filter(|_| !self.sees_closes)?;
        let attached = cgroup::attach(&mut self.object, &self.dirs, root, program::RELEASE);
        self.sees_closes = attached.is_ok();
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
        let release = self.sees_closes.then_some(program::RELEASE);
        for name in program::CGROUP.into_iter().chain(release) {
            if cgroup::attach(&mut self.object, &self.dirs, &root, name)? == Attached::Anew {
                let cgroup = root.display();
                tracing::warn!(program = name, %cgroup, "was taken off by somebody; attached again");
            }
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
        wanted.remove(&Place::loopback());
        if wants_loopback {
            wanted.insert(Place::loopback());
        } else {
            // An earlier run may have attached its filter.
            before.insert(Place::loopback());
        }
        let answered_pods = std::mem::replace(&mut self.answers_pods, answers_pods);
        let places = Places { wanted: &wanted, answers_pods, answered_pods };
        let errors = devices::sync(&mut self.object, &self.dirs, self.tc, places, &before);
        self.places = Some(wanted);
        errors
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
