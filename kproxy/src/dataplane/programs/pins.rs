//! Where maps, programs and links are pinned.
//!
//! ```text
//! <bpffs root>/kproxy/v<ABI version>/maps/<map name>
//!                                   /programs/<program name>
//!                                   /links/<program name>             cgroup programs
//!                                   /links/<program name>@<index>     device programs
//! ```
//!
//! A device's links are named by its index: names change while links stay.

use std::{
    io,
    path::{Path, PathBuf},
};

use kproxy_common::abi::ABI_VERSION;

/// The folders of one version's pins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PinDirs {
    /// `<bpffs root>/kproxy`, which holds one folder a version.
    pub(crate) base: PathBuf,
    /// `<base>/v<ABI version>`.
    pub(crate) version: PathBuf,
    /// Pinned maps.
    pub(crate) maps: PathBuf,
    /// Pinned programs.
    pub(crate) programs: PathBuf,
    /// Pinned links.
    pub(crate) links: PathBuf,
}

impl PinDirs {
    /// The folders below a bpffs mount (or a folder of one).
    pub(crate) fn new(bpffs_root: &Path) -> Self {
        Self::of_version(bpffs_root.join("kproxy"), ABI_VERSION)
    }

    /// The folders of a layout version below `base`.
    pub(crate) fn of_version(base: PathBuf, version: u32) -> Self {
        let version = base.join(format!("v{version}"));
        Self {
            maps: version.join("maps"),
            programs: version.join("programs"),
            links: version.join("links"),
            version,
            base,
        }
    }

    /// Pin of a program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Pin of a map.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// Pin of a cgroup program's link.
    pub(crate) fn cgroup_link(&self, program: &str) -> PathBuf {
        self.links.join(program)
    }

    /// Pin of a device program's link.
    pub(crate) fn device_link(&self, program: &str, device: u32) -> PathBuf {
        self.links.join(format!("{program}@{device}"))
    }
}

/// Layout versions other than this one's that have folders below `base`, sorted.
///
/// # Errors
/// Those of reading the folder.
pub(crate) fn other_versions(base: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(base)? {
        let version = parse_version(&entry?.file_name().to_string_lossy());
        found.extend(version.filter(|version| *version != ABI_VERSION));
    }
    found.sort_unstable();
    Ok(found)
}

/// The version of a folder of pins, from its name; `None`: it is no such folder.
pub(crate) fn parse_version(folder_name: &str) -> Option<u32> {
    folder_name.strip_prefix('v')?.parse().ok()
}

/// The program and, for a device's link, the index of the device that a link's pin is named after. 0, which
/// no device has: it is named otherwise.
pub(crate) fn parse_link(file_name: &str) -> (&str, Option<u32>) {
    match file_name.split_once('@') {
        Some((program, device)) => (program, Some(device.parse().unwrap_or(0))),
        None => (file_name, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_links_of_devices_are_named_by_one() {
        assert_eq!(parse_link("kp_connect4"), ("kp_connect4", None));
        assert_eq!(parse_link("kp_ingress@eth0"), ("kp_ingress", Some(0)));
    }

    proptest! {
        #[test]
        fn any_pin_is_of_a_program_and_perhaps_a_device(file_name in "[a-z0-9@%.]{0,20}|\\PC*") {
            let (program, device) = parse_link(&file_name);
            prop_assert!(file_name.starts_with(program));
            prop_assert_eq!(device.is_some(), file_name.contains('@'));
        }

        #[test]
        fn links_of_any_device_are_found_again(device: u32) {
            let dirs = PinDirs::new(Path::new("/bpf"));
            let path = dirs.device_link("kp_ingress", device);
            let name = path.file_name().unwrap().to_str().unwrap();
            prop_assert_eq!(parse_link(name), ("kp_ingress", Some(device)));
        }
    }
}
