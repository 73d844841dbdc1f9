//! Attaches the programs and keeps them attached.
//!
//! Links are pinned, so they outlive the daemon. On a restart the pinned link gets the new program
//! in one step: there is no moment without one. Before kernel 6.6, which has no links for tc, the
//! uplink programs are filters of the clsact qdisc, replaced in one step as well.
//!
//! Whatever others have attached stays where it is and keeps running.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        links::{CgroupAttachMode, FdLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};
use kproxy_common::abi::program;

use super::{
    error::{Error, chain},
    pins::{PinDirs, parse_link},
    sys::{self, LinkPlace},
};
use crate::node::Device;

/// Priority of kproxy's clsact filters: the kernel runs lower ones first. An odd number of our own,
/// so that no other program's filter is replaced by mistake.
const CLSACT_PRIORITY: u16 = 19_312;
/// Handle of kproxy's clsact filters.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Index of the loopback device in every network namespace (include/net/flow.h).
const LOOPBACK: u32 = 1;

/// How uplink programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TcMode {
    /// Links of the tcx hook: kernel 6.6 (commit e420bed02507).
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

impl TcMode {
    /// What the running kernel can do.
    pub(super) fn of_kernel() -> Self {
        let has_tcx = KernelVersion::current().is_ok_and(|now| now >= KernelVersion::new(6, 6, 0));
        if has_tcx { Self::Tcx } else { Self::Clsact }
    }
}

/// Attaches the socket programs to a cgroup and everything below it.
pub(super) fn cgroup(object: &mut Ebpf, dirs: &PinDirs, root: &Path) -> Result<(), Error> {
    program::CGROUP.into_iter().try_for_each(|name| to_cgroup(object, dirs, root, name))
}

/// Attaches one program to a cgroup and everything below it.
pub(super) fn to_cgroup(
    object: &mut Ebpf,
    dirs: &PinDirs,
    root: &Path,
    name: &str,
) -> Result<(), Error> {
    let failed = |why: String| Error::Attach {
        program: name.to_owned(),
        target: root.display().to_string(),
        why,
        remedy: "look whether another program holds the hook for itself (bpftool cgroup tree), or \
                 name another folder with --cgroup-root",
    };
    let folder = File::open(root).map_err(|error| failed(error.to_string()))?;
    let id = cgroup_id(&folder).map_err(|error| failed(error.to_string()))?;
    let lacks = || failed("the BPF object lacks it".to_owned());
    let program = object.program_mut(name).ok_or_else(lacks)?;
    let path = dirs.cgroup_link(name);
    let fd = program.fd().map_err(|error| failed(chain(&error)))?;
    if update_pinned(&path, LinkPlace::Cgroup(id), fd.as_fd())
        .map_err(|error| failed(error.to_string()))?
    {
        return Ok(());
    }
    let mode = CgroupAttachMode::Single;
    let link = match program {
        Program::CgroupSockAddr(program) => {
            let link = program.attach(folder, mode).and_then(|link| program.take_link(link));
            FdLink::try_from(link.map_err(|error| failed(chain(&error)))?)
        }
        Program::CgroupSock(program) => {
            let link = program.attach(folder, mode).and_then(|link| program.take_link(link));
            FdLink::try_from(link.map_err(|error| failed(chain(&error)))?)
        }
        _ => return Err(lacks()),
    };
    pin_link(link.map_err(|error| failed(chain(&error)))?, &path)
}

/// The kernel's id of a cgroup: the inode number of its folder.
fn cgroup_id(folder: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(folder.metadata()?.ino())
}

/// Where a device leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Side {
    /// To other nodes and to clients.
    Uplink,
    /// To a pod of this node.
    Pod,
    /// To this node itself: the loopback device.
    Node,
}

/// A device and where it leads.
pub(super) type Place = (Device, Side);

/// Places that programs are attached to.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) wanted: &'a BTreeSet<Place>,
    /// Whether pods' ports translate answers.
    pub(super) answered: bool,
}

impl Places<'_> {
    /// The programs of a device, the way back first: no connection is translated one way only.
    fn programs_of(
        self,
        (device, side): &Place,
    ) -> impl Iterator<Item = (&'static str, TcAttachType)> + use<> {
        let (egress, ingress) = match (side, device.ethernet) {
            (Side::Pod, _) => (program::POD_EGRESS, Some(program::POD_INGRESS)),
            (Side::Uplink, true) => (program::EGRESS, Some(program::INGRESS)),
            (Side::Uplink, false) => (program::EGRESS_L3, Some(program::INGRESS_L3)),
            (Side::Node, _) => (program::NODE_EGRESS, None),
        };
        let egress = (*side != Side::Pod || self.answered).then_some(egress);
        let egress = egress.map(|name| (name, TcAttachType::Egress));
        egress.into_iter().chain(ingress.map(|name| (name, TcAttachType::Ingress)))
    }
}

/// Attaches the programs to `places` and takes them off all others. Every device is tried; returns
/// what failed.
pub(super) fn devices(
    object: &mut Ebpf,
    dirs: &PinDirs,
    mode: TcMode,
    places: Places<'_>,
    gone: &[Place],
) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut one_way = Vec::new();
    for place in places.wanted {
        let attached = places
            .programs_of(place)
            .try_for_each(|(name, way)| attach(object, dirs, mode, place, name, way));
        if let Err(error) = attached {
            errors.push(error);
            // The way there was alone until now, and must not stay so.
            let (device, side) = place;
            let way_back = dirs.device_link(program::POD_EGRESS, &device.name);
            if *side == Side::Pod && !way_back.exists() {
                one_way.push(place);
            }
        }
    }
    match mode {
        TcMode::Tcx => detach_others(dirs, places, &one_way, &mut errors),
        TcMode::Clsact => {
            for (device, _) in one_way {
                errors.extend(detach_clsact(&device.name).err());
            }
            // One that has changed sides has got its new programs in place of the old.
            let is_gone = |device: &Device| !places.wanted.iter().any(|(other, _)| other == device);
            for (device, _) in gone.iter().filter(|(device, _)| is_gone(device)) {
                errors.extend(detach_clsact(&device.name).err());
            }
        }
    }
    errors
}

/// Where this node's packets to itself pass.
pub(super) fn loopback() -> Place {
    (Device { name: "lo".to_owned(), index: LOOPBACK, ethernet: true }, Side::Node)
}

/// Whether programs have been attached to the loopback device, as far as pins tell.
pub(super) fn is_on_loopback(dirs: &PinDirs) -> bool {
    let (device, _) = loopback();
    dirs.device_link(program::NODE_EGRESS, &device.name).exists()
}

/// Takes the socket programs off the cgroup, the way there first. Whether there were any.
pub(super) fn off_cgroup(dirs: &PinDirs) -> Result<bool, Error> {
    let mut any = false;
    for name in [program::RELEASE].into_iter().chain(program::CGROUP).rev() {
        let path = dirs.cgroup_link(name);
        any |= remove_file(&path).map_err(|error| Error::Pin { what: "remove", path, error })?;
    }
    Ok(any)
}

fn attach(
    object: &mut Ebpf,
    dirs: &PinDirs,
    mode: TcMode,
    (device, side): &Place,
    name: &'static str,
    direction: TcAttachType,
) -> Result<(), Error> {
    let failed = |why: String| Error::Attach {
        program: name.to_owned(),
        target: format!("device {}", device.name),
        why,
        remedy: match side {
            Side::Uplink => {
                "leave the device out with --devices if it is not meant to carry Service traffic"
            }
            Side::Pod => "leave the device out with --pod-devices if it does not lead to a pod",
            Side::Node => {
                "processes of this node reach no Service by its own addresses until it is: see \
                 `tc qdisc show dev lo`"
            }
        },
    };
    let program: &mut SchedClassifier = object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| failed("the BPF object lacks it".to_owned()))?;
    if mode == TcMode::Clsact {
        return attach_clsact(program, device, direction).map_err(|error| failed(chain(&error)));
    }
    let path = dirs.device_link(name, &device.name);
    let fd = program.fd().map_err(|error| failed(chain(&error)))?;
    if update_pinned(&path, LinkPlace::Device(device.index), fd.as_fd())
        .map_err(|error| failed(error.to_string()))?
    {
        return Ok(());
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = program
        .attach_with_options(&device.name, direction, order)
        .and_then(|link| program.take_link(link))
        .map_err(|error| failed(chain(&error)))?;
    let link = FdLink::try_from(link).map_err(|error| failed(chain(&error)))?;
    pin_link(link, &path)
}

/// Gives a pinned link the program. `false`: there is no such link, or it leads elsewhere (another
/// cgroup, a device that is gone or came back under its name), so a new one is needed.
fn update_pinned(path: &Path, place: LinkPlace, program: BorrowedFd<'_>) -> io::Result<bool> {
    let link = match sys::open_pin(path, sys::Access::ReadWrite) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let info = sys::link_info(link.as_fd())?;
    if info.place != place {
        return Ok(false);
    }
    if sys::program_id(program)? == info.program_id {
        return Ok(true);
    }
    match sys::update_link(link.as_fd(), program) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Pins under another name first, so that a stale pin is replaced in one step.
fn pin_link(link: FdLink, path: &Path) -> Result<(), Error> {
    let failed = |error| Error::Pin { what: "pin", path: path.to_owned(), error };
    let fresh = fresh_name(path);
    remove_file(&fresh).map_err(failed)?;
    link.pin(&fresh).map_err(|error| failed(io::Error::other(chain(&error))))?;
    fs::rename(&fresh, path).map_err(failed)
}

fn fresh_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    name.into()
}

/// Removes a file; whether it was there.
pub(super) fn remove_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Programs are taken off in the reverse of the order in which they are attached: the way there
/// before the way back.
pub(super) fn attach_order(link: &Path) -> usize {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let (program, _) = parse_link(&name);
    let mut all = program::CGROUP.into_iter().chain(program::DEVICE);
    all.position(|known| known == program).unwrap_or(usize::MAX)
}

/// Removes the pins of device links that are not wanted: that detaches them.
fn detach_others(dirs: &PinDirs, places: Places<'_>, one_way: &[&Place], errors: &mut Vec<Error>) {
    let served = places.wanted.iter().filter(|place| !one_way.contains(place));
    let links =
        |place| places.programs_of(place).map(|(name, _)| dirs.device_link(name, &place.0.name));
    let wanted: BTreeSet<PathBuf> = served.flat_map(links).collect();
    let failed = |path: &Path, error| Error::Pin { what: "remove", path: path.to_owned(), error };
    let entries = match fs::read_dir(&dirs.links) {
        Ok(entries) => entries,
        Err(error) => return errors.push(failed(&dirs.links, error)),
    };
    let mut stale: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| parse_link(&entry.file_name().to_string_lossy()).1.is_some())
        .map(|entry| entry.path())
        .filter(|path| !wanted.contains(path))
        .collect();
    // The way there goes first.
    stale.sort_by_key(|path| std::cmp::Reverse(attach_order(path)));
    for path in stale {
        match remove_file(&path) {
            Ok(_) => tracing::info!(link = %path.display(), "detached"),
            Err(error) => errors.push(failed(&path, error)),
        }
    }
}

fn attach_clsact(
    program: &mut SchedClassifier,
    device: &Device,
    direction: TcAttachType,
) -> Result<(), ProgramError> {
    match tc::qdisc_add_clsact(&device.name) {
        Ok(()) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let present = SchedClassifierLink::attached(
        &device.name,
        direction,
        CLSACT_PRIORITY,
        CLSACT_HANDLE,
        None,
    )?;
    let link = match program.attach_to_link(present) {
        Ok(link) => link,
        Err(ProgramError::TcError(TcError::NetlinkError(error)))
            if error.raw_os_error() == Some(libc::ENOENT) =>
        {
            let options = NlOptions {
                priority: CLSACT_PRIORITY,
                handle: CLSACT_HANDLE,
                ..NlOptions::default()
            };
            program.attach_with_options(
                &device.name,
                direction,
                TcAttachOptions::Netlink(options),
            )?
        }
        Err(error) => return Err(error),
    };
    // The filter must outlive the daemon; dropping the link would remove it.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Removes kproxy's filters, found by the names of its programs, from a device. Whether there were
/// any.
pub(super) fn detach_clsact(device: &str) -> Result<bool, Error> {
    let mut any = false;
    for (name, direction) in [
        (program::INGRESS, TcAttachType::Ingress),
        (program::INGRESS_L3, TcAttachType::Ingress),
        (program::POD_INGRESS, TcAttachType::Ingress),
        (program::EGRESS, TcAttachType::Egress),
        (program::EGRESS_L3, TcAttachType::Egress),
        (program::POD_EGRESS, TcAttachType::Egress),
        (program::NODE_EGRESS, TcAttachType::Egress),
    ] {
        match tc::qdisc_detach_program(device, direction, name) {
            Ok(()) => any = true,
            // No such filter, no clsact qdisc, or the device itself is gone.
            Err(TcError::IoError(error)) if is_absent(error.raw_os_error(), error.kind()) => {}
            Err(TcError::NetlinkError(error))
                if is_absent(error.raw_os_error(), io::ErrorKind::Other) => {}
            Err(error) => {
                return Err(Error::Attach {
                    program: name.to_owned(),
                    target: format!("device {device}"),
                    why: format!("its filter could not be removed: {}", chain(&error)),
                    remedy: "remove it with `tc filter del`",
                });
            }
        }
    }
    Ok(any)
}

fn is_absent(code: Option<i32>, kind: io::ErrorKind) -> bool {
    kind == io::ErrorKind::NotFound
        || matches!(code, Some(libc::ENOENT | libc::EINVAL | libc::ENODEV | libc::ENXIO))
}
