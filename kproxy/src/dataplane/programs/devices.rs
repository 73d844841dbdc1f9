//! Attaches the tc programs to devices and keeps them where they belong: links of the tcx hook, before
//! kernel 6.6 filters of the clsact qdisc.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{LinkOrder, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions},
};
use kproxy_common::abi::program;

use super::{
    clsact, pinning,
    pins::{PinDirs, parse_link},
    place::{Place, Places, Side},
};
use crate::{
    dataplane::{
        error::{Cause, Error, Missing},
        kernel::{bpf::LinkPlace, release},
    },
    node::Device,
};

/// How device programs are attached.
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
        if release::is_at_least(6, 6) { Self::Tcx } else { Self::Clsact }
    }
}

/// Attaches the programs to `places` and takes them off all others; `gone` are those that had some.
/// Every device is tried; returns what failed.
pub(super) fn sync(
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
            let way_back = dirs.device_link(program::POD_EGRESS, &place.device.name);
            if place.side == Side::Pod && !way_back.exists() {
                one_way.push(place);
            }
        }
    }
    match mode {
        TcMode::Tcx => detach_others(dirs, places, &one_way, &mut errors),
        TcMode::Clsact => {
            // One that has changed sides has got its new programs in place of the old.
            let is_gone =
                |device: &Device| places.wanted.iter().all(|other| other.device != *device);
            let gone = gone.iter().filter(|place| is_gone(&place.device));
            for place in one_way.into_iter().chain(gone) {
                errors.extend(clsact::detach(&place.device.name).err());
            }
        }
    }
    errors
}

/// Whether programs have been attached to the loopback device, as far as pins tell.
pub(super) fn is_on_loopback(dirs: &PinDirs) -> bool {
    dirs.device_link(program::NODE_EGRESS, &Place::loopback().device.name).exists()
}

fn attach(
    object: &mut Ebpf,
    dirs: &PinDirs,
    mode: TcMode,
    Place { device, side }: &Place,
    name: &'static str,
    direction: TcAttachType,
) -> Result<(), Error> {
    let failed = |source: Cause| Error::Attach {
        program: name,
        target: format!("device {}", device.name),
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
        source,
    };
    let program: &mut SchedClassifier = object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| failed(Missing.into()))?;
    if mode == TcMode::Clsact {
        return clsact::attach(program, device, direction).map_err(|error| failed(error.into()));
    }
    let path = dirs.device_link(name, &device.name);
    match link(program, &path, device, direction).map_err(failed)? {
        Some(link) => pinning::replace(&path, |path| link.pin(path)),
        None => Ok(()),
    }
}

/// A new link; `None`: the pinned one has got the program.
fn link(
    program: &mut SchedClassifier,
    path: &Path,
    device: &Device,
    direction: TcAttachType,
) -> Result<Option<FdLink>, Cause> {
    let place = LinkPlace::Device(device.index);
    if pinning::update_link(path, place, program.fd()?.as_fd())? {
        return Ok(None);
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = program.attach_with_options(&device.name, direction, order)?;
    Ok(Some(FdLink::try_from(program.take_link(link)?)?))
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
    let links = |place: &Place| {
        let device = place.device.name.clone();
        places.programs_of(place).map(move |(name, _)| dirs.device_link(name, &device))
    };
    let wanted: BTreeSet<PathBuf> = served.flat_map(links).collect();
    let entries = match fs::read_dir(&dirs.links) {
        Ok(entries) => entries,
        Err(error) => return errors.push(Error::of_pin("open", &dirs.links)(error)),
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
        match pinning::remove(&path) {
            Ok(_) => tracing::info!(link = %path.display(), "detached"),
            Err(error) => errors.push(error),
        }
    }
}
