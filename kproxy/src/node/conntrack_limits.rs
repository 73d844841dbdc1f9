//! Sets the kernel's connection tracking. The data path does without it, but whatever else goes through
//! the node's netfilter (masquerading by a CNI, a firewall) has the room and the times that kube-proxy
//! gives it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use procfs::process::MountInfo;
use tracing::info;

use super::conntrack::FOLDER;

/// Size of the table.
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
/// The online CPUs, like `0-3,8`.
const CPUS: &str = "/sys/devices/system/cpu/online";
/// Most that is asked for by the number of CPUs (kubernetes `pkg/proxy/conntrack`).
const MOST: u32 = 1_048_576;
/// Connections for each bucket of the table, as kube-proxy has it.
pub(crate) const ENTRIES_PER_BUCKET: u32 = 4;

/// A setting that is to have a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// Its name, without the folder.
    pub name: &'static str,
    /// The value.
    pub value: u32,
    /// A larger one is left as it is.
    pub at_least: bool,
}

/// What has come of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has the value.
    Set,
    /// The kernel tracks no connections, as yet.
    Absent,
    /// It cannot be set.
    Failed {
        /// What is there.
        found: u32,
        /// The reason.
        error: io::Error,
    },
}

/// Connections to have room for, with `per_core` for each CPU and `least` in all.
pub(crate) fn room(per_core: u32, least: u32) -> u32 {
    room_for(per_core, least, cpus(&fs::read_to_string(CPUS).unwrap_or_default()))
}

fn room_for(per_core: u32, least: u32, cpus: u32) -> u32 {
    match per_core.saturating_mul(cpus) {
        0 => 0,
        // As kube-proxy has it: beyond that the least does not count either.
        scaled if scaled > MOST => MOST,
        scaled => scaled.max(least),
    }
}

/// Number of CPUs in a list like `0-3,8`; 1 for what is none.
fn cpus(list: &str) -> u32 {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(count).sum::<u32>().max(1)
}

/// Gives a setting its value.
pub(crate) fn set(wanted: &Wanted) -> Outcome {
    let path = Path::new(FOLDER).join(wanted.name);
    set_file(&path, &writable(&path, "proc", "/proc"), wanted)
}

/// Makes the table large enough for so many connections.
pub(crate) fn set_table_size(room: u32) -> Outcome {
    let wanted = Wanted { name: "hashsize", value: room / ENTRIES_PER_BUCKET, at_least: true };
    set_file(Path::new(HASHSIZE), &writable(Path::new(HASHSIZE), "sysfs", "/sys"), &wanted)
}

/// Reads at one place and writes at another, only what is not so already.
fn set_file(read: &Path, write: &Path, wanted: &Wanted) -> Outcome {
    let found = match fs::read_to_string(read) {
        Ok(text) => text.trim().parse().unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::Absent,
        Err(error) => return Outcome::Failed { found: 0, error },
    };
    if found == wanted.value || wanted.at_least && found > wanted.value {
        return Outcome::Set;
    }
    match fs::write(write, wanted.value.to_string()) {
        Ok(()) => {
            info!(setting = wanted.name, found, value = wanted.value, "connection tracking is set");
            Outcome::Set
        }
        Err(error) => Outcome::Failed { found, error },
    }
}

/// Where a file of a file system mounted at `usual` can be written: in a container that has it read-only,
/// below another mount of it, if there is one (see deploy/kproxy.yaml).
fn writable(path: &Path, fs_type: &str, usual: &str) -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    below_another(&table, path, fs_type, usual).unwrap_or_else(|| path.to_owned())
}

fn below_another(table: &str, path: &Path, fs_type: &str, usual: &str) -> Option<PathBuf> {
    let inside = Path::new("/").join(path.strip_prefix(usual).ok()?);
    let mounts = table.lines().filter_map(|line| MountInfo::from_line(line).ok());
    let others = mounts.filter(|mount| {
        mount.fs_type == fs_type
            && !mount.mount_point.starts_with(usual)
            && mount.mount_options.contains_key("rw")
    });
    let mut places = others.filter_map(|mount| {
        let below = inside.strip_prefix(&mount.root).ok()?;
        Some(mount.mount_point.join(below))
    });
    // The last mount is on top.
    places.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_the_cpus_as_kube_proxys_does() {
        for (per_core, least, cpus, wanted) in [
            (0, 131_072, 8, 0),
            (32_768, 131_072, 2, 131_072),
            (32_768, 131_072, 8, 262_144),
            (32_768, 0, 1, 32_768),
            (32_768, 131_072, 64, MOST),
            (32_768, 2_000_000, 64, MOST),
            (1, 2_000_000, 64, 2_000_000),
            (u32::MAX, 1, 64, MOST),
        ] {
            assert_eq!(room_for(per_core, least, cpus), wanted, "{per_core} {least} {cpus}");
        }
        for (list, count) in [("0\n", 1), ("0-3\n", 4), ("0-3,8,10-11", 7), ("", 1), ("x-1", 1)] {
            assert_eq!(cpus(list), count, "{list}");
        }
    }

    #[test]
    fn only_what_differs_is_written_and_room_only_grows() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("there"), folder.path().join("written"));
        let wanted = |value, at_least| Wanted { name: "there", value, at_least };
        let set = |wanted| set_file(&path, &elsewhere, &wanted);
        assert!(matches!(set(wanted(5, false)), Outcome::Absent));
        fs::write(&path, "7\n").unwrap();
        for same in [wanted(7, false), wanted(5, true)] {
            assert!(matches!(set(same), Outcome::Set));
            assert!(!elsewhere.exists(), "{same:?}");
        }
        for (other, text) in [(wanted(5, false), "5"), (wanted(9, true), "9")] {
            assert!(matches!(set(other), Outcome::Set));
            assert_eq!(fs::read_to_string(&elsewhere).unwrap(), text);
        }
        fs::remove_file(&elsewhere).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        assert!(matches!(set(wanted(5, false)), Outcome::Failed { found: 7, .. }));
    }

    #[test]
    fn a_container_writes_where_the_node_is_mounted_for_writing() {
        let table = "\
700 690 0:5 / /proc rw,nosuid - proc proc rw
701 700 0:5 /sys /proc/sys ro,nosuid - proc proc rw
702 690 0:23 /sys/net /host/proc/sys/net rw - proc proc rw
703 690 0:24 /module /host/sys/module ro - sysfs sysfs rw
";
        let path = Path::new("/proc/sys/net/netfilter/nf_conntrack_max");
        let found = below_another(table, path, "proc", "/proc");
        assert_eq!(found, Some("/host/proc/sys/net/netfilter/nf_conntrack_max".into()));
        assert_eq!(below_another(table, Path::new("/proc/sys/fs/x"), "proc", "/proc"), None);
        assert_eq!(below_another(table, Path::new(HASHSIZE), "sysfs", "/sys"), None, "read-only");
    }
}
