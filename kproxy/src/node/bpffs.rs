//! The BPF file system that holds the pins.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use thiserror::Error;

/// The BPF file system cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The folder could not be made or looked at.
    #[error(
        "could not use {} as BPF file system: {error}; run kproxy as root, or name a folder of a \
         mounted BPF file system with --bpffs-root", path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The mount was refused.
    #[error(
        "could not mount a BPF file system at {}: {error}; mount it beforehand \
         (mount -t bpf bpf {}) or name one with --bpffs-root", path.display(), path.display()
    )]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Whether a folder is on a BPF file system.
///
/// # Errors
/// Those of statfs(2).
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Makes sure that `path` is on a BPF file system: makes the folder, and mounts one there unless
/// it already is. Whether it was mounted by this call.
///
/// # Errors
/// The folder could not be made, or the mount was refused.
pub fn ensure(path: &Path) -> Result<bool, Error> {
    let failed = |error| Error::Folder { path: path.to_owned(), error };
    fs::create_dir_all(path).map_err(failed)?;
    if is_bpffs(path).map_err(failed)? {
        return Ok(false);
    }
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| Error::Mount { path: path.to_owned(), error: errno.into() })?;
    tracing::info!(path = %path.display(), "mounted a BPF file system");
    Ok(true)
}
