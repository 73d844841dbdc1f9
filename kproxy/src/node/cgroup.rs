//! Where the cgroup v2 tree begins.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

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
    /// In a container, and only the container's own part of the tree is there.
    #[error(
        "this container sees only its own cgroups: sockets of pods would not be served; mount the \
         node's /sys/fs/cgroup into it (see deploy/kproxy.yaml), or give --cgroup-root"
    )]
    OnlyOwn,
    /// The mount table cannot be read.
    #[error("read {TABLE}: {0}")]
    Mounts(#[source] std::io::Error),
}

const TABLE: &str = "/proc/self/mountinfo";
/// Inode number of the initial cgroup namespace (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h).
const INITIAL_NAMESPACE: u64 = 0xefff_fffb;

/// The folder to attach the socket programs to: `given`, or the root of the node's cgroup v2 tree.
///
/// In a container the node's tree must be mounted beside the container's own. The mount table tells
/// them apart: seen from a cgroup namespace, a mount of the whole tree has the root `/..`, `/../..`
/// and so on (cgroup_namespaces(7)).
pub fn root(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return if is_cgroup2(path) {
            Ok(path.to_path_buf())
        } else {
            Err(Error::NotCgroup2(path.to_path_buf()))
        };
    }
    let table = std::fs::read_to_string(TABLE).map_err(Error::Mounts)?;
    let in_container = std::fs::metadata("/proc/self/ns/cgroup")
        .is_ok_and(|namespace| namespace.ino() != INITIAL_NAMESPACE);
    let (depth, path) = highest(&table).ok_or(Error::NotFound)?;
    if depth == 0 && in_container {
        return Err(Error::OnlyOwn);
    }
    Ok(path)
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The cgroup v2 mount that begins highest in the tree, and how far above our namespace's root.
/// Fields of mountinfo (proc_pid_mountinfo(5)): 4 is the root within the file system, 5 the mount
/// point, and the type follows the dash.
fn highest(table: &str) -> Option<(usize, PathBuf)> {
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let up = root.split('/').skip(1);
        let whole = root == "/" || up.clone().all(|part| part == "..");
        let depth = up.filter(|part| *part == "..").count();
        (after.split(' ').next()? == "cgroup2" && whole).then(|| (depth, PathBuf::from(point)))
    });
    // The first of equals: what the system itself has mounted.
    mounts.reduce(|best, next| if next.0 > best.0 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_trees_only_and_the_first_of_them() {
        let table = "\
25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw,mode=755
27 25 0:24 /docker/1234 /sys/fs/cgroup/part rw - cgroup2 cgroup2 rw
26 25 0:24 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
29 25 0:24 / /mnt/again rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
28 25 0:25 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu
broken line
";
        assert_eq!(highest(table), Some((0, "/sys/fs/cgroup/unified".into())));
        assert_eq!(highest("28 25 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw"), None);
    }

    #[test]
    fn in_a_container_the_nodes_tree_beats_the_containers_own() {
        let table = "\
710 700 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw
720 700 0:27 /../../.. /host/sys/fs/cgroup ro master:4 - cgroup2 cgroup2 rw
";
        assert_eq!(highest(table), Some((3, "/host/sys/fs/cgroup".into())));
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused_by_name() {
        let error = root(Some(Path::new("/proc"))).unwrap_err();
        assert!(error.to_string().starts_with("/proc is not on a cgroup v2"), "{error}");
    }
}
