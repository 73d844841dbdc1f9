//! What a kproxy of another layout version has left on this node: maps that mean the same are gone on with, its
//! links get the programs of this version, and the rest is removed once those are attached.

use std::{fs, fs::File, io, os::fd::AsFd as _, path::Path};

use kproxy_common::{
    abi::{map, program},
    layouts,
};
use nix::fcntl::Flock;

use super::{
    cleanup::Cleanup,
    load::open_memory,
    pinning,
    pins::{PinDirs, other_versions, parse_link},
};
use crate::dataplane::{
    error::Error,
    kernel::{
        bpf::{self, Access},
        memory::Memory,
    },
};

/// The pins of another version.
pub(crate) struct Predecessor {
    version: u32,
    dirs: PinDirs,
    /// Its daemon does not run, and is not started meanwhile.
    _lock: Flock<File>,
}

/// Those of all other versions, the latest last.
///
/// # Errors
/// A daemon of one is at work, or a folder cannot be read.
pub(crate) fn find(own: &PinDirs) -> Result<Vec<Predecessor>, Error> {
    let versions = other_versions(&own.base).map_err(Error::of_pin("open", &own.base))?;
    let found = versions.into_iter().map(|version| {
        let dirs = PinDirs::of_version(own.base.clone(), version);
        let lock = pinning::lock(&dirs.version)?;
        Ok(Predecessor { version, dirs, _lock: lock })
    });
    found.collect()
}

impl Predecessor {
    /// Pins its maps for this version, where they mean the same. Whether they do; if so, flows, sockets,
    /// affinity and counters go on, and Services are served from the first moment.
    ///
    /// # Errors
    /// A map cannot be opened or pinned: those before it are.
    pub(crate) fn hand_on_maps(&self, own: &PinDirs) -> Result<bool, Error> {
        if !self.means_the_same() {
            return Ok(false);
        }
        // By this one is told whether all are here: after a crash in between this is done once more.
        let last = [map::FLOWS];
        let names = map::handed_on().filter(|name| !last.contains(name)).chain(last);
        for name in names {
            let (from, to) = (self.dirs.map(name), own.map(name));
            let map = match bpf::open_pin(&from, Access::ReadWrite) {
                Ok(map) => map,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::of_pin("open", from)(error)),
            };
            pinning::remove(&to)?;
            bpf::pin(map.as_fd(), &to).map_err(Error::of_pin("pin", to))?;
        }
        Ok(true)
    }

    /// Versions before 3 do not say what their maps mean.
    fn means_the_same(&self) -> bool {
        let layout: Result<Memory<u64>, _> = open_memory(&self.dirs, map::LAYOUT);
        layout.ok().and_then(|layout| layout.get(0)) == Some(layouts::meaning())
    }

    /// Moves the pins of its links to where this version looks for links, so that each gets the program of this
    /// version in one step. Where this version has a link already, the other's goes with the rest.
    ///
    /// # Errors
    /// A pin cannot be moved.
    pub(crate) fn hand_on_links(&self, own: &PinDirs) -> Result<(), Error> {
        let entries = match fs::read_dir(&self.dirs.links) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::of_pin("open", &self.dirs.links)(error)),
        };
        for from in entries.flatten().map(|entry| entry.path()) {
            let to = own.links.join(from.file_name().unwrap_or_default());
            if is_known(&from) && !to.exists() {
                pinning::rename(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Its layout version.
    pub(crate) const fn version(&self) -> u32 {
        self.version
    }

    /// Removes what is left of it; what fails is returned.
    pub(crate) fn remove(self) -> Vec<Error> {
        let mut done = Cleanup::default();
        done.remove_version(&self.dirs.version);
        done.errors
    }
}

/// Whether the link is of a program that this version has, too.
fn is_known(link: &Path) -> bool {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let (of, _) = parse_link(&name);
    let mut all = program::CGROUP.into_iter().chain([program::RELEASE]).chain(program::DEVICE);
    all.any(|name| name == of)
}
