//! Why the pins could not be opened or read, as sentences that say what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use kproxy_common::abi::ABI_VERSION;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

use crate::dataplane::pins::PinDirs;

/// Why the pinned maps could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
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
        "could not open {}: {why}; restart kproxy, or run `kproxy cleanup` and start it anew",
        path.display()
    )]
    Other {
        /// What could not be opened.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
}

impl OpenError {
    pub(super) fn opening(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted { path },
            io::ErrorKind::NotFound => Self::NoPins { path },
            _ => Self::Other { path, why: error.to_string() },
        }
    }

    pub(super) fn other(path: &Path, why: impl ToString) -> Self {
        Self::Other { path: path.to_owned(), why: why.to_string() }
    }
}

/// A pinned map or link could not be read.
#[derive(Debug, Error)]
#[error("could not read {what}: {why}")]
pub struct ReadError {
    /// The map, or the folder of links.
    pub what: String,
    /// What went wrong.
    pub why: String,
}

impl ReadError {
    pub(super) fn of(map: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self { what: format!("map {map}"), why: error.to_string() }
    }

    pub(super) fn map(map: &'static str, error: aya::maps::MapError) -> Self {
        // aya's outer message of a failed call names the call only.
        let why = match &error {
            aya::maps::MapError::SyscallError(call) => format!("{}: {}", call.call, call.io_error),
            other => other.to_string(),
        };
        Self { what: format!("map {map}"), why }
    }
}

/// Tells no bpffs, no pins, another version and no permission apart.
pub(super) fn check_folders(bpffs_root: &Path, dirs: &PinDirs) -> Result<(), OpenError> {
    match statfs(bpffs_root) {
        Ok(info) if info.filesystem_type() == BPF_FS_MAGIC => {}
        Ok(_) => return Err(OpenError::NoBpffs { path: bpffs_root.to_owned() }),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {
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
            Err(OpenError::OtherVersion { found: found.join(", "), wanted: ABI_VERSION })
        }
        Ok(_) => Err(OpenError::NoPins { path: dirs.version.clone() }),
        Err(error) => Err(OpenError::opening(&dirs.version, error)),
    }
}

fn other_versions(base: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(base)? {
        let name = entry?.file_name();
        let Some(version) = name.to_str().and_then(|name| name.strip_prefix('v')) else { continue };
        if version.parse::<u32>().is_ok_and(|version| version != ABI_VERSION) {
            found.push(version.to_owned());
        }
    }
    found.sort();
    Ok(found)
}
