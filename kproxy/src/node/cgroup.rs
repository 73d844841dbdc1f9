//! The cgroup v2 tree: where it begins, and where in it a cgroup is.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use procfs::process::MountInfo;

use crate::{errors::with_causes, model::Problem};

const NONE: &str = "no cgroup v2 file system is mounted";
const MOUNT: &str = "run `mount -t cgroup2 none /sys/fs/cgroup/unified` on the node, or give its folder with \
                     --cgroup-root, and restart kproxy";
const OWN: &str = "this container sees only its own cgroups, not those of pods";
const SHOW: &str = "mount the node's /sys/fs/cgroup into it (see deploy/kproxy.yaml), or give --cgroup-root, and \
                    restart kproxy";

/// The kernel's id of the cgroup with this folder, the number of its inode; `None`: it is gone.
pub(crate) fn id(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|found| found.ino())
}

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
    #[error("{NONE}; {MOUNT}")]
    NotFound,
    /// In a container, and only the container's own part of the tree is there.
    #[error("{OWN}; {SHOW}")]
    OnlyOwn,
    /// The mount table cannot be read.
    #[error("read {TABLE}")]
    Mounts(#[source] io::Error),
}

impl Error {
    /// The error as a problem that does not stop the rest.
    pub(crate) fn to_problem(&self) -> Problem {
        let (what, remedy) = match self {
            Self::NotCgroup2(_) | Self::Mounts(_) => {
                (with_causes(self), "mount it, and restart kproxy")
            }
            Self::NotFound => (NONE.to_owned(), MOUNT),
            Self::OnlyOwn => (OWN.to_owned(), SHOW),
        };
        let what = format!(
            "{what}; sockets are not served, their packets are translated instead, as with --socket-lb none"
        );
        Problem::new("cgroup v2", what, remedy)
    }
}

const TABLE: &str = "/proc/self/mountinfo";
/// Inode number of the initial cgroup namespace (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h).
const INITIAL_NAMESPACE: u64 = 0xefff_fffb;

/// The folder to attach the socket programs to: `given`, or the root of the node's cgroup v2 tree.
///
/// In a container the node's tree must be mounted beside the container's own. The mount table tells
/// them apart: seen from a cgroup namespace, a mount of the whole tree has the root `/..`, `/../..`
/// and so on (cgroup_namespaces(7)).
pub(crate) fn root(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return if is_cgroup2(path) {
            Ok(path.to_path_buf())
        } else {
            Err(Error::NotCgroup2(path.to_path_buf()))
        };
    }
    let table = fs::read_to_string(TABLE).map_err(Error::Mounts)?;
    let in_container = fs::metadata("/proc/self/ns/cgroup")
        .is_ok_and(|namespace| namespace.ino() != INITIAL_NAMESPACE);
    let (depth, path) = highest(&table).ok_or(Error::NotFound)?;
    if depth == 0 && in_container {
        return Err(Error::OnlyOwn);
    }
    Ok(path)
}

/// Folder of the cgroup with this kernel id, which is its inode number (kernfs_node::id); `None` if it
/// lies outside the cgroup file systems that are seen from here.
pub(crate) fn folder(id: u64) -> Option<PathBuf> {
    let table = fs::read_to_string(TABLE).ok()?;
    mounts(&table).find_map(|mount| find_inode(&mount.mount_point, id))
}

/// The cgroup v2 mounts of a mount table. A line that cannot be understood hides no other.
fn mounts(table: &str) -> impl Iterator<Item = MountInfo> {
    let mounts = table.lines().filter_map(|line| MountInfo::from_line(line).ok());
    mounts.filter(|mount| mount.fs_type == "cgroup2")
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The cgroup v2 mount that begins highest in the tree, and how far above our namespace's root.
fn highest(table: &str) -> Option<(usize, PathBuf)> {
    let whole = mounts(table).filter_map(|mount| {
        let up = mount.root.split('/').skip(1);
        let is_whole = mount.root == "/" || up.clone().all(|part| part == "..");
        let depth = up.filter(|part| *part == "..").count();
        is_whole.then_some((depth, mount.mount_point))
    });
    // The first of equals: what the system itself has mounted.
    whole.reduce(|best, next| if next.0 > best.0 { next } else { best })
}

/// Level by level, as kproxy is attached at or near the root.
fn find_inode(root: &Path, inode: u64) -> Option<PathBuf> {
    let mut level = vec![root.to_owned()];
    while !level.is_empty() {
        let is_it = |folder: &&PathBuf| fs::metadata(folder).is_ok_and(|data| data.ino() == inode);
        if let Some(found) = level.iter().find(is_it) {
            return Some(found.clone());
        }
        level = level.iter().flat_map(|folder| folders_in(folder)).collect();
    }
    None
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
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
    fn folders_are_found_by_their_inode() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let inode = fs::metadata(&deep).unwrap().ino();
        assert_eq!(find_inode(root.path(), inode), Some(deep));
        assert_eq!(find_inode(root.path(), 0), None);
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused_by_name() {
        let error = root(Some(Path::new("/proc"))).unwrap_err();
        assert!(error.to_string().starts_with("/proc is not on a cgroup v2"), "{error}");
    }
}
