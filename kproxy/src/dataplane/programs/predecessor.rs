//! What a kproxy of another layout version has left on this node: its maps are gone on with ([`super::takeover`]),
//! its links get the programs of this version, and the rest is removed once those are attached.

use std::{fs, fs::File, io, path::Path};

use kproxy_common::abi::program;
use nix::fcntl::Flock;

use super::{
    cleanup::Cleanup,
    pinning,
    pins::{PinDirs, other_versions, parse_link},
    takeover::Takeover,
};
use crate::dataplane::error::Error;

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
    /// Begins to go on with its maps. `None`: it does not say what they mean, as versions before 3.
    ///
    /// # Errors
    /// Those of [`Takeover::begin`].
    pub(crate) fn take_over(&self, own: &PinDirs) -> Result<Option<Takeover>, Error> {
        Takeover::begin(&self.dirs, own)
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
            // Those that it has put behind others stay where they are, until the rest is removed.
            if is_known(&from) && !pinning::is_fresh_name(&from) && !to.exists() {
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
