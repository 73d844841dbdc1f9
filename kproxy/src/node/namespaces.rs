//! The network namespaces of this node.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where namespaces are kept by name: CNI plugins and `ip netns`, Docker.
const FOLDERS: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Every network namespace that can be found but the own one: those with a name, and those of
/// processes. What cannot be looked at is left out; a container without the host's process ids sees
/// only the named ones.
pub fn others() -> Vec<File> {
    let mut seen: BTreeSet<(u64, u64)> =
        identity(Path::new("/proc/self/ns/net")).into_iter().collect();
    let named = FOLDERS.iter().flat_map(entries);
    let processes = entries(&"/proc").map(|process| process.join("ns/net"));
    let found = named.chain(processes);
    // A file that is only the place of a namespace which is gone has another kind of identity, and
    // entering it fails: only files of the kernel's nsfs count, which are one device.
    let nsfs = seen.first().map(|(device, _)| *device);
    found
        .filter(|path| identity(path).is_some_and(|id| Some(id.0) == nsfs && seen.insert(id)))
        .filter_map(|path| File::open(path).ok())
        .collect()
}

fn entries(folder: &&str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

/// Device and inode: the same for every name of a namespace.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_found_by_its_process_once() {
        let mut child = std::process::Command::new("unshare");
        let mut child = child.args(["--net", "sleep", "60"]).spawn().unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let own = identity(Path::new("/proc/self/ns/net")).unwrap();
        let namespace = (0..500)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                identity(&path).filter(|id| *id != own)
            })
            .unwrap();
        let found: Vec<_> = others()
            .iter()
            .map(|file| file.metadata().map(|data| (data.dev(), data.ino())).unwrap())
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.iter().filter(|id| **id == namespace).count(), 1, "{found:?}");
        assert!(!found.contains(&own));
    }
}
