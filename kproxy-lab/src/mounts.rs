//! The mounts of this process.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use procfs::process::{MountInfos, Process};

/// Where a file system of this type is mounted first.
pub(crate) fn first_of(kind: &str) -> Result<Option<PathBuf>> {
    let first = table()?.into_iter().find(|mount| mount.fs_type == kind);
    Ok(first.map(|mount| mount.mount_point))
}

/// All mounts, in the order in which they were made.
fn table() -> Result<MountInfos> {
    Process::myself().and_then(|process| process.mountinfo()).context("read /proc/self/mountinfo")
}

/// Mounts a BPF file system.
pub(crate) fn bpffs(at: &Path) -> Result<()> {
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a BPF file system at {}", at.display()))
}

/// Mounts a file system in memory.
pub(crate) fn tmpfs(at: &Path) -> Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a tmpfs at {}", at.display()))
}

/// Unmounts everything below a folder, the last mounted first.
pub(crate) fn unmount_below(dir: &Path) -> Result<()> {
    let mut points: Vec<_> = table()?.into_iter().map(|mount| mount.mount_point).collect();
    points.retain(|point| point.starts_with(dir));
    for point in points.iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            // Another cleaner was quicker.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("unmount {}", point.display())),
        }
    }
    Ok(())
}
