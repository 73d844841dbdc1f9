//! Takes every trace of the data path off this node.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{attach, error::Error, pins::PinDirs};
use crate::node::{self, nft::Repair};

/// What [`cleanup`] did.
#[derive(Debug, Default)]
pub struct Cleanup {
    /// What was removed, in words.
    pub removed: Vec<String>,
    /// What could not be removed.
    pub errors: Vec<Error>,
}

/// Removes links, programs and maps of every version below `bpffs_root`, the clsact filters on
/// the devices of this network namespace, and the nftables table. Goes on after an error.
///
/// Established connections of sockets go on (they lead to their backends directly), those that
/// the packet path translates end. A mounted BPF file system stays mounted, and so does the clsact
/// qdisc: others may use them.
pub fn cleanup(bpffs_root: &Path) -> Cleanup {
    let mut done = Cleanup::default();
    let base = PinDirs::new(bpffs_root).base;
    match node::bpffs::is_bpffs(&base) {
        Ok(true) => remove_pins(&base, &mut done),
        // Not a BPF file system: whatever is there is not ours.
        Ok(false) | Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
        Err(errno) => {
            done.errors.push(Error::Pin { what: "open", path: base, error: errno.into() });
        }
    }
    remove_filters(&mut done);
    match node::nft::remove_if_present() {
        Ok(Repair::Removed) => done.removed.push("nftables table inet kproxy".to_owned()),
        Ok(Repair::Intact | Repair::Written(_)) => {}
        Err(error) => done.errors.push(error.into()),
    }
    done
}

fn remove_pins(base: &Path, done: &mut Cleanup) {
    for version in list(base, done).into_iter().filter(|path| is_version(path)) {
        let mut links = list(&version.join("links"), done);
        links.sort_by_key(|path| std::cmp::Reverse(attach::attach_order(path)));
        for folder in
            [links, list(&version.join("programs"), done), list(&version.join("maps"), done)]
        {
            for path in folder {
                note(&path, fs::remove_file(&path), done);
            }
        }
        for folder in ["links", "programs", "maps"] {
            let folder = version.join(folder);
            note(&folder, fs::remove_dir(&folder), done);
        }
        note(&version, fs::remove_dir(&version), done);
    }
    note(base, fs::remove_dir(base), done);
}

/// Folders of pins are named `v<number>`.
fn is_version(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok())
}

fn list(folder: &Path, done: &mut Cleanup) -> Vec<PathBuf> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            paths
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            done.errors.push(Error::Pin { what: "open", path: folder.to_owned(), error });
            Vec::new()
        }
    }
}

fn note(path: &Path, result: io::Result<()>, done: &mut Cleanup) {
    match result {
        Ok(()) => done.removed.push(path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            done.errors.push(Error::Pin { what: "remove", path: path.to_owned(), error });
        }
    }
}

/// Filters of the clsact qdisc have no pin: every device is asked.
fn remove_filters(done: &mut Cleanup) {
    let devices = match nix::net::if_::if_nameindex() {
        Ok(devices) => devices,
        Err(errno) => {
            let error = Error::Maps(errno.into());
            return done.errors.push(error);
        }
    };
    for device in &devices {
        let name = device.name().to_string_lossy();
        match attach::detach_clsact(&name) {
            Ok(true) => done.removed.push(format!("clsact filters of device {name}")),
            Ok(false) => {}
            Err(error) => done.errors.push(error),
        }
    }
}
