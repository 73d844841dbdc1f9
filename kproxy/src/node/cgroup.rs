//! Where the cgroup v2 tree begins.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Why no cgroup v2 tree can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder given by `--cgroup-root` is not on cgroup v2.
    #[error(
        "{} is not on a cgroup v2 file system; give --cgroup-root a folder that is \
         (see `mount -t cgroup2`)", .0.display()
    )]
    NotCgroup2(PathBuf),
    /// Nothing was given and nothing was found.
    #[error(
        "no cgroup v2 file system is mounted; run `mount -t cgroup2 none /sys/fs/cgroup/unified` \
         on the node, or give its folder with --cgroup-root"
    )]
    NotFound,
    /// The mount table cannot be read.
    #[error("read {path}: {source}")]
    Mounts {
        /// The file.
        path: &'static str,
        /// The reason.
        source: std::io::Error,
    },
}

/// The folder to attach the socket programs to: `given`, or the root of the cgroup v2 tree.
///
/// In a container with the host's process ids, the host's tree is reached through
/// `/proc/1/root`: the container's own /sys/fs/cgroup shows only its own subtree.
pub fn root(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return if is_cgroup2(path) {
            Ok(path.to_path_buf())
        } else {
            Err(Error::NotCgroup2(path.to_path_buf()))
        };
    }
    // The mounts of process 1 are those of the host when its process ids are shared, and our own
    // otherwise; where they may not be read, our own must do.
    let candidates = [("/proc/1/mountinfo", "/proc/1/root"), ("/proc/self/mountinfo", "/")];
    let mut unreadable = None;
    for (table, prefix) in candidates {
        match std::fs::read_to_string(table) {
            Ok(text) => {
                let found = cgroup2_mounts(&text)
                    .map(|mount| Path::new(prefix).join(mount.trim_start_matches('/')))
                    .find(|path| is_cgroup2(path));
                if let Some(path) = found {
                    return Ok(path);
                }
            }
            Err(source) => unreadable = Some(Error::Mounts { path: table, source }),
        }
    }
    Err(unreadable.unwrap_or(Error::NotFound))
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Mount points of whole cgroup v2 trees in a mountinfo table (proc_pid_mountinfo(5)): field 4 is
/// the root within the file system, field 5 the mount point, the type follows the dash.
fn cgroup2_mounts(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2" && root == "/").then_some(point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_trees_only() {
        let table = "\
25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw,mode=755
26 25 0:24 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 /docker/1234 /sys/fs/cgroup/part rw - cgroup2 cgroup2 rw
28 25 0:25 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu
broken line
";
        assert_eq!(cgroup2_mounts(table).collect::<Vec<_>>(), ["/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused_by_name() {
        let error = root(Some(Path::new("/proc"))).unwrap_err();
        assert!(error.to_string().starts_with("/proc is not on a cgroup v2"), "{error}");
    }
}
