//! The root of the cgroup v2 tree, where the socket programs are attached.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use thiserror::Error;

/// No usable cgroup v2 tree.
#[derive(Debug, Error)]
pub enum Error {
    /// None is mounted.
    #[error(
        "no cgroup v2 file system is mounted (looked in {looked_in}); mount one \
         (mount -t cgroup2 none /sys/fs/cgroup), mount the host's /sys/fs/cgroup into the container, \
         or name it with --cgroup-root"
    )]
    NotFound {
        /// Where it was looked for.
        looked_in: String,
    },
    /// The given folder is something else.
    #[error("{} is no folder of a cgroup v2 file system{why}; name one with --cgroup-root", path.display())]
    NotCgroup2 {
        /// The folder.
        path: PathBuf,
        /// `: ` and what the kernel said, if anything.
        why: String,
    },
}

/// The folder to attach to: `given` if there is one, else the root of the host's tree.
///
/// # Errors
/// Nothing found, or `given` is on no cgroup v2 file system.
pub fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return check(path).map(|()| path.to_owned());
    }
    // In a container that shares the host's process ids, process 1 is the host's init and its root
    // shows the host's whole tree; the container's own mount often shows its own cgroup only.
    let places = [
        ("/proc/1/mountinfo", Path::new("/proc/1/root")),
        ("/proc/self/mountinfo", Path::new("/")),
    ];
    for (file, root) in places {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let found = mounts(&text)
            .map(|mount| root.join(mount.strip_prefix("/").unwrap_or(&mount)))
            .find(|path| check(path).is_ok());
        if let Some(path) = found {
            // The short name when both lead to the same folder: that is how people know it.
            return Ok(shorten(&path, root).unwrap_or(path));
        }
    }
    let looked_in = places.map(|(file, _)| file).join(" and ");
    Err(Error::NotFound { looked_in })
}

fn check(path: &Path) -> Result<(), Error> {
    let not = |why: String| Error::NotCgroup2 { path: path.to_owned(), why };
    match statfs(path) {
        Ok(info) if info.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(()),
        Ok(_) => Err(not(String::new())),
        Err(errno) => Err(not(format!(": {errno}"))),
    }
}

fn shorten(path: &Path, root: &Path) -> Option<PathBuf> {
    let short = Path::new("/").join(path.strip_prefix(root).ok()?);
    (id(&short).ok()? == id(path).ok()?).then_some(short)
}

/// The kernel's id of a cgroup: the inode number of its folder (fs/kernfs, 64-bit inodes).
///
/// # Errors
/// The folder could not be looked at.
pub fn id(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path)?.ino())
}

/// Mount points of cgroup v2 file systems in the text of a mountinfo file (proc(5)), those that
/// show the whole tree first.
fn mounts(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    let mut found: Vec<(bool, PathBuf)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            (after.split(' ').next()? == "cgroup2").then(|| (root != "/", unescape(point).into()))
        })
        .collect();
    found.sort_by_key(|(partial, _)| *partial);
    found.into_iter().map(|(_, path)| path)
}

/// Mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_mounts_are_found_whole_trees_first() {
        let text = "\
            24 1 0:22 /kubepods/pod1 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n\
            25 1 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            26 1 0:22 / /sys/fs/cgroup/uni\\040fied rw shared:9 master:1 - cgroup2 none rw\n\
            broken line\n";
        let found: Vec<_> = mounts(text).collect();
        assert_eq!(found, [Path::new("/sys/fs/cgroup/uni fied"), Path::new("/sys/fs/cgroup")]);
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused_by_name() {
        let error = find(Some(Path::new("/proc"))).unwrap_err().to_string();
        assert!(error.contains("/proc is no folder of a cgroup v2"), "{error}");
        let error = find(Some(Path::new("/nowhere"))).unwrap_err().to_string();
        assert!(error.contains("ENOENT"), "{error}");
    }
}
