//! Why the pins could not be opened or read, as sentences that say what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use kproxy_common::abi::ABI_VERSION;
use thiserror::Error;

use crate::{
    dataplane::{
        error::Cause,
        programs::pins::{PinDirs, other_versions},
    },
    node::bpffs::is_bpffs,
};

/// Why the pinned maps could not be opened.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// There is no BPF file system.
    #[error(
        "no BPF file system at {}: kproxy has not run here since the machine started, or it was \
         given another --bpffs-root; start `kproxy run` or name the folder with --bpffs-root",
        path.display()
    )]
    NoBpffs {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// There is one, but kproxy has pinned nothing there.
    #[error(
        "no kproxy maps at {}: kproxy has not run here, or `kproxy cleanup` has removed them; \
         start `kproxy run` or name the folder with --bpffs-root",
        path.display()
    )]
    NoPins {
        /// The folder that was looked for.
        path: PathBuf,
    },
    /// Another version of kproxy has pinned its maps.
    #[error(
        "the maps are of layout version {found}, this kproxy reads version {wanted}; use the \
         kproxy that is running on this node, or restart the node's kproxy with this one"
    )]
    OtherVersion {
        /// Versions found.
        found: String,
        /// The version of this binary.
        wanted: u32,
    },
    /// The caller has not the rights.
    #[error(
        "no permission to read {}: reading BPF maps needs root (or CAP_BPF and access to the \
         folder); try sudo",
        path.display()
    )]
    NotPermitted {
        /// What could not be read.
        path: PathBuf,
    },
    /// Anything else.
    #[error(
        "could not open {} (restart kproxy, or run `kproxy cleanup` and start it anew)",
        path.display()
    )]
    Other {
        /// What could not be opened.
        path: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A pinned map has another layout than this version's.
    #[error(
        "could not open {}: its elements have {found} bytes instead of {wanted}; restart kproxy, or \
         run `kproxy cleanup` and start it anew",
        path.display()
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Size of its elements.
        found: usize,
        /// What it should be.
        wanted: usize,
    },
}

impl OpenError {
    pub(super) fn opening(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted { path },
            io::ErrorKind::NotFound => Self::NoPins { path },
            _ => Self::Other { path, source: error.into() },
        }
    }
}

/// A pinned map or link could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// A map.
    #[error("could not read map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The links.
    #[error("could not read {}", folder.display())]
    Links {
        /// Their folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// For use with `map_err`.
    pub(super) fn of_map<E: Into<Cause>>(map: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Map { map, source: source.into() }
    }
}

/// Tells no bpffs, no pins, another version and no permission apart.
pub(in crate::dataplane) fn check_folders(
    bpffs_root: &Path,
    dirs: &PinDirs,
) -> Result<(), OpenError> {
    match is_bpffs(bpffs_root) {
        Ok(true) => {}
        Ok(false) | Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {
            return Err(OpenError::NoBpffs { path: bpffs_root.to_owned() });
        }
        Err(errno) => return Err(OpenError::opening(bpffs_root, errno.into())),
    }
    match std::fs::metadata(&dirs.maps) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::opening(&dirs.maps, error)),
    }
    match other_versions(&dirs.base) {
        Ok(found) if !found.is_empty() => {
            let found: Vec<_> = found.iter().map(u32::to_string).collect();
            Err(OpenError::OtherVersion { found: found.join(", "), wanted: ABI_VERSION })
        }
        Ok(_) => Err(OpenError::NoPins { path: dirs.version.clone() }),
        Err(error) => Err(OpenError::opening(&dirs.version, error)),
    }
}
