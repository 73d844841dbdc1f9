//! The BPF file system that holds the pins.

use std::path::{Path, PathBuf};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Why there is no BPF file system to pin in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is missing and cannot be made.
    #[error("create {path}: {source}; give another --bpffs-root", path = path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The folder cannot be looked at.
    #[error("look at {path}: {source}", path = path.display())]
    Stat {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: Errno,
    },
    /// No BPF file system is mounted there, and mounting one was refused.
    #[error(
        "mount a BPF file system on {path}: {source}; run `mount -t bpf bpf {path}` on the node, \
         or give another --bpffs-root",
        path = path.display()
    )]
    Mount {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: Errno,
    },
}

/// Whether `path` is on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> Result<bool, Errno> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Makes sure that `root` is on a BPF file system; mounts one there if it is not, and says so.
pub(crate) fn ensure(root: &Path) -> Result<(), Error> {
    let path = || root.to_path_buf();
    if !root.exists() {
        std::fs::create_dir_all(root).map_err(|source| Error::Create { path: path(), source })?;
    }
    if is_bpffs(root).map_err(|source| Error::Stat { path: path(), source })? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), root, Some("bpf"), flags, Some("mode=700"))
        .map_err(|source| Error::Mount { path: path(), source })?;
    tracing::info!(path = %root.display(), "mounted a BPF file system for the pins");
    Ok(())
}
