//! The network namespaces of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
    sys::socket::SockaddrStorage,
};
use procfs::process::{MountInfo, MountOptFields};
use tokio::sync::oneshot;

use super::{netns, roles};

/// Where namespaces are kept by name: CNI plugins and `ip netns`, Docker.
const FOLDERS: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Every network namespace that can be found but the own one: those with a name, and those of
/// processes. What cannot be looked at is left out; a container without the host's process ids sees
/// only the named ones.
pub(crate) fn others() -> Vec<File> {
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

/// Names of network namespaces, by inode number.
pub(crate) fn names() -> BTreeMap<u64, String> {
    let named = FOLDERS.iter().flat_map(entries).filter_map(|path| {
        let (_, inode) = identity(&path)?;
        Some((inode, path.file_name()?.to_string_lossy().into_owned()))
    });
    named.collect()
}

/// Inode number of the own one.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn own() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/net").map(|namespace| namespace.ino())
}

/// Does something on a thread of its own, which may end in another network namespace than it began in.
/// `None`: the thread could not be started or has panicked.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        // Nobody waits when the daemon ends.
        let _ended = sender.send(work());
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).ok()?;
    receiver.await.ok()
}

/// Who is in which network namespace.
#[derive(Debug, Default)]
pub(crate) struct Inhabitants {
    /// The addresses in each but the own one, by its cookie; those of a link alone left out.
    pub addresses: BTreeMap<u64, BTreeSet<IpAddr>>,
    /// Why some could not be looked into.
    pub error: Option<io::Error>,
}

/// Looks into every network namespace but the own one. The thread is left in one of them: it should end
/// after this ([`on_own_thread`]). The cookies are 0 where the kernel tells none ([`netns::cookie`]).
pub(crate) fn inhabitants() -> Inhabitants {
    let mut found = Inhabitants::default();
    for namespace in others() {
        match look_into(&namespace) {
            Ok((cookie, addresses)) => drop(found.addresses.insert(cookie, addresses)),
            Err(error) => drop(found.error.get_or_insert(error)),
        }
    }
    found
}

fn look_into(namespace: &File) -> io::Result<(u64, BTreeSet<IpAddr>)> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok((netns::cookie()?, addresses()?))
}

/// Addresses of the calling thread's network namespace that others may know.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let addresses = getifaddrs()?.filter_map(|entry| ip(entry.address?)).filter(roles::is_global);
    Ok(addresses.collect())
}

/// How many namespaces have a name here but cannot be entered by it: in a container whose mount of the folder
/// does not follow the node's, those that were made after it began.
pub(crate) fn unseen() -> usize {
    let Some((nsfs, _)) = identity(Path::new("/proc/self/ns/net")) else { return 0 };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let names = FOLDERS.iter().filter(|folder| stands_still(&table, folder)).flat_map(entries);
    names.filter_map(|path| identity(&path)).filter(|(device, _)| *device != nsfs).count()
}

/// Whether a folder is mounted by itself, as a container has it, and neither shares mounts nor follows
/// others'.
fn stands_still(table: &str, folder: &str) -> bool {
    let mut mounts = table.lines().filter_map(|line| MountInfo::from_line(line).ok());
    let last = mounts.rfind(|mount| mount.mount_point == Path::new(folder));
    last.is_some_and(|mount| {
        let follows = |field: &MountOptFields| {
            matches!(field, MountOptFields::Shared(_) | MountOptFields::Master(_))
        };
        !mount.opt_fields.iter().any(follows)
    })
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
    fn a_mount_of_its_own_that_follows_nobody_stands_still() {
        let mount =
            |fields: &str| format!("720 700 0:27 /netns /run/netns ro {fields}- tmpfs none rw\n");
        assert!(stands_still(&mount(""), "/run/netns"));
        for follows in ["master:4 ", "shared:7 ", "shared:7 master:4 "] {
            assert!(!stands_still(&mount(follows), "/run/netns"), "{follows}");
        }
        let parent = "30 1 0:25 / /run rw - tmpfs tmpfs rw\n";
        assert!(!stands_still(parent, "/run/netns"), "no container");
    }

    #[tokio::test]
    async fn a_namespace_shows_its_addresses_and_never_those_of_the_own_one() {
        let script = "ip address add 198.51.100.77/32 dev lo && \
                      ip address add 2001:db8:77::1/128 dev lo && exec sleep 60";
        let mut child = std::process::Command::new("unshare");
        let mut child = child.args(["--net", "sh", "-c", script]).spawn().unwrap();
        let wanted: BTreeSet<IpAddr> =
            ["198.51.100.77", "2001:db8:77::1"].map(|text| text.parse().unwrap()).into();
        let mut seen = Vec::new();
        for _ in 0..500 {
            thread::sleep(std::time::Duration::from_millis(10));
            let found = on_own_thread("test", inhabitants).await.unwrap().addresses;
            assert!(!found.contains_key(&netns::cookie().unwrap()));
            seen = found.into_values().filter(|addresses| *addresses == wanted).collect();
            if !seen.is_empty() {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_namespace_is_found_by_its_process_once() {
        let mut child = std::process::Command::new("unshare");
        let mut child = child.args(["--net", "sleep", "60"]).spawn().unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let own = identity(Path::new("/proc/self/ns/net")).unwrap();
        let namespace = (0..500)
            .find_map(|_| {
                thread::sleep(std::time::Duration::from_millis(10));
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
