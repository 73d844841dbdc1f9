//! Attaches the socket programs to a cgroup and everything below it.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        Program,
        links::{CgroupAttachMode, FdLink},
    },
};
use kproxy_common::abi::program;

use super::{pinning, pins::PinDirs, place::Attached};
use crate::dataplane::{
    error::{Cause, Error, Missing},
    kernel::bpf::LinkPlace,
};

/// Attaches those that every socket needs.
pub(super) fn attach_all(object: &mut Ebpf, dirs: &PinDirs, root: &Path) -> Result<(), Error> {
    program::CGROUP.into_iter().try_for_each(|name| attach(object, dirs, root, name).map(drop))
}

/// Attaches one program.
pub(super) fn attach(
    object: &mut Ebpf,
    dirs: &PinDirs,
    root: &Path,
    name: &'static str,
) -> Result<Attached, Error> {
    let path = dirs.cgroup_link(name);
    let link = link(object, &path, root, name).map_err(|source| Error::Attach {
        program: name,
        target: root.display().to_string(),
        remedy: "look with `bpftool cgroup tree` whether another program holds the hook for \
                 itself, or name another folder with --cgroup-root",
        source,
    })?;
    let Some(link) = link else { return Ok(Attached::AsBefore) };
    pinning::replace(&path, |path| link.pin(path))?;
    Ok(Attached::Anew)
}

/// A new link; `None`: the pinned one has got the program.
fn link(object: &mut Ebpf, path: &Path, root: &Path, name: &str) -> Result<Option<FdLink>, Cause> {
    let folder = File::open(root)?;
    let program = object.program_mut(name).ok_or(Missing)?;
    // The kernel's id of a cgroup is the inode number of its folder.
    let place = LinkPlace::Cgroup(folder.metadata()?.ino());
    if pinning::update_link(path, place, program.fd()?.as_fd())? {
        return Ok(None);
    }
    let mode = CgroupAttachMode::Single;
    let link = match program {
        Program::CgroupSockAddr(program) => {
            let link = program.attach(folder, mode)?;
            FdLink::try_from(program.take_link(link)?)
        }
        Program::CgroupSock(program) => {
            let link = program.attach(folder, mode)?;
            FdLink::try_from(program.take_link(link)?)
        }
        _ => return Err(Missing.into()),
    };
    Ok(Some(link?))
}

/// Takes the socket programs off the cgroup, the way there first. Whether there were any.
pub(super) fn detach(dirs: &PinDirs) -> Result<bool, Error> {
    let mut any = false;
    for name in [program::RELEASE].into_iter().chain(program::CGROUP).rev() {
        any |= pinning::remove(&dirs.cgroup_link(name))?;
    }
    Ok(any)
}
