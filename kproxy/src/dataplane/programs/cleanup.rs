//! Takes every trace of the data path off this node.

use std::{
    cmp::Reverse,
    fs, io,
    path::{Path, PathBuf},
};

use kproxy_common::abi::map;

use super::{
    clsact, devices,
    pins::{PinDirs, parse_version},
    takeover,
};
use crate::{
    dataplane::error::Error,
    node::{self, nft::Repair},
};

/// What [`cleanup`] did.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    /// What was removed, in words.
    pub(crate) removed: Vec<String>,
    /// What could not be removed.
    pub(crate) errors: Vec<Error>,
}

/// Removes links, programs and maps of every version below `bpffs_root`, the clsact filters on
/// the devices of this network namespace, and the nftables table. Goes on after an error.
///
/// Established connections of sockets go on (they lead to their backends directly), those that
/// the packet path translates end. A mounted BPF file system stays mounted, and so does the clsact
/// qdisc: others may use them.
pub(crate) fn cleanup(bpffs_root: &Path) -> Cleanup {
    let mut done = Cleanup::default();
    let base = PinDirs::new(bpffs_root).base;
    match node::bpffs::is_bpffs(&base) {
        Ok(true) => done.remove_pins(&base),
        // Not a BPF file system: whatever is there is not ours.
        Ok(false) | Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
        Err(errno) => done.errors.push(Error::of_pin("open", base)(io::Error::from(errno))),
    }
    done.remove_filters();
    match node::nft::remove_if_present() {
        Ok(Repair::Removed) => done.removed.push("nftables table inet kproxy".to_owned()),
        Ok(Repair::Intact | Repair::Written(_)) => {}
        Err(error) => done.errors.push(error.into()),
    }
    done
}

impl Cleanup {
    fn remove_pins(&mut self, base: &Path) {
        for version in self.list(base).into_iter().filter(|path| is_version(path)) {
            self.remove_version(&version);
        }
        self.note(base, fs::remove_dir(base));
    }

    /// Removes the pins of one version, links first, and its folder.
    pub(super) fn remove_version(&mut self, version: &Path) {
        let folders = ["links", "programs", "maps"].map(|name| version.join(name));
        let mut links = self.list(&folders[0]);
        links.sort_by_key(|path| Reverse(devices::attach_order(path)));
        let mut others: Vec<_> = folders[1..].iter().flat_map(|folder| self.list(folder)).collect();
        // Without flows what is left after a crash is not gone on with.
        others.sort_by_key(|path| !path.ends_with(map::FLOWS));
        for pin in links.into_iter().chain(others) {
            self.note(&pin, fs::remove_file(&pin));
        }
        let unfinished = takeover::unfinished(version);
        for folder in folders.iter().chain([&unfinished]).map(PathBuf::as_path).chain([version]) {
            self.note(folder, fs::remove_dir(folder));
        }
    }

    /// What is in a folder, by name.
    fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        match fs::read_dir(folder) {
            Ok(entries) => {
                let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
                paths.sort();
                paths
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.errors.push(Error::of_pin("open", folder)(error));
                }
                Vec::new()
            }
        }
    }

    fn note(&mut self, path: &Path, removed: io::Result<()>) {
        match removed {
            Ok(()) => self.removed.push(path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.errors.push(Error::of_pin("remove", path)(error)),
        }
    }

    /// Filters of the clsact qdisc have no pin: every device is asked.
    fn remove_filters(&mut self) {
        let devices = match nix::net::if_::if_nameindex() {
            Ok(devices) => devices,
            Err(errno) => return self.errors.push(Error::Devices(errno.into())),
        };
        for device in &devices {
            let name = device.name().to_string_lossy();
            match clsact::detach(&name) {
                Ok(true) => self.removed.push(format!("clsact filters of device {name}")),
                Ok(false) => {}
                Err(error) => self.errors.push(error),
            }
        }
    }
}

fn is_version(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    parse_version(&name).is_some()
}
