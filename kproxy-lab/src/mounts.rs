//! The mount table of this process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// One mount.
pub(crate) struct Mount {
    /// Mount point.
    pub(crate) at: PathBuf,
    /// File system type.
    pub(crate) kind: String,
}

/// All mounts, in the order in which they were made.
pub(crate) fn list() -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse).collect())
}

/// A line of mountinfo (proc_pid_mountinfo(5)): the mount point is the fifth field, the type is the
/// first one after the lone hyphen.
fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    Some(Mount {
        at: PathBuf::from(before.split(' ').nth(4)?),
        kind: after.split(' ').next()?.to_owned(),
    })
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
    for mount in list()?.into_iter().rev().filter(|mount| mount.at.starts_with(dir)) {
        match umount2(&mount.at, MntFlags::MNT_DETACH) {
            // Another cleaner was quicker.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("unmount {}", mount.at.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_with_and_without_optional_fields() {
        for line in [
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            "36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw",
        ] {
            let mount = parse(line).unwrap();
            assert_eq!((mount.at.as_path(), mount.kind.as_str()), (Path::new("/mnt2"), "ext3"));
        }
        assert!(parse("nonsense").is_none());
    }
}
