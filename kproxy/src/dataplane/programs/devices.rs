//! Attaches the tc programs to devices and keeps them where they belong: links of the tcx hook, before
//! kernel 6.6 filters of the clsact qdisc.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use kproxy_common::abi::program;

use super::{
    clsact, pinning,
    pins::{PinDirs, parse_link},
    place::{Attached, Place, Places, Side},
};
use crate::{
    dataplane::{
        error::{Cause, Error, Missing},
        kernel::{
            bpf::{self, Access, LinkPlace},
            release,
        },
    },
    node::{self, Device, Served},
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

/// Attaches the programs to `places` and takes them off all others; `before` are those that had some.
/// Every device is tried; returns what failed.
pub(super) fn sync(
    object: &mut Ebpf,
    dirs: &PinDirs,
    mode: TcMode,
    places: Places<'_>,
    before: &BTreeSet<Place>,
) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut one_way = Vec::new();
    for place in places.wanted {
        let was_there = before.iter().any(|other| other.is_as(place));
        let attached = places.programs_of(place).try_for_each(|(name, way)| {
            let anew = attach(object, dirs, mode, place, name, way)? == Attached::Anew;
            if anew && was_there && before_had(places, name) {
                let device = place.device.name.as_str();
                tracing::warn!(program = name, device, "was taken off by somebody; attached again");
            }
            Ok(())
        });
        match attached {
            Ok(()) => {}
            // It has gone meanwhile, as devices of pods do.
            Err(_) if node::device::name_of(place.device.index).is_none() => {}
            Err(error) => {
                errors.push(error);
                // The way there was alone until now, and must not stay so.
                let way_back = dirs.device_link(program::POD_EGRESS, place.device.index);
                if place.side == Side::Pod && !way_back.exists() {
                    one_way.push(place);
                }
            }
        }
    }
    match mode {
        TcMode::Tcx => detach_others(dirs, places, &one_way, &mut errors),
        TcMode::Clsact => {
            // One that has changed sides has got its new programs in place of the old.
            let is_gone = |place: &&Place| {
                places.wanted.iter().all(|other| other.device.index != place.device.index)
            };
            let gone = before.iter().filter(is_gone);
            for place in one_way.into_iter().chain(gone) {
                let name = node::device::name_of(place.device.index);
                errors.extend(name.and_then(|name| clsact::detach(&name).err()));
            }
        }
    }
    errors
}

/// Attaches the programs behind those of another version that have their links: those see each packet first. Every
/// device is tried; returns what failed.
pub(super) fn attach_behind(
    object: &mut Ebpf,
    dirs: &PinDirs,
    mode: TcMode,
    places: Places<'_>,
) -> Vec<Error> {
    each(places, |place, name, way| {
        let Place { device, side } = place;
        let path = dirs.device_link(name, device.index);
        let failed = |source| failed_at(name, device, *side, source);
        let program = classifier(object, name).map_err(failed)?;
        match mode {
            TcMode::Tcx if !path.exists() => Ok(()),
            TcMode::Tcx => {
                let behind = pinning::fresh_name(&path);
                let Some(link) =
                    link_behind(program, &path, &behind, device, way).map_err(failed)?
                else {
                    return Ok(());
                };
                pinning::remove(&behind)?;
                link.pin(&behind).map_err(Error::of_pin("pin", &behind))?;
                Ok(())
            }
            TcMode::Clsact => {
                let attached = name_now(device)
                    .and_then(|name| Ok(clsact::attach_behind(program, &name, way)?));
                attached.map(drop).map_err(failed)
            }
        }
    })
}

/// Takes those of the other version off, so that the programs behind them see each packet first; links get the pins
/// of theirs. Filters are replaced by [`sync`].
pub(super) fn come_first(dirs: &PinDirs, mode: TcMode, places: Places<'_>) -> Vec<Error> {
    if mode == TcMode::Clsact {
        return Vec::new();
    }
    each(places, |Place { device, side }, name, _| {
        let path = dirs.device_link(name, device.index);
        let behind = pinning::fresh_name(&path);
        if !behind.exists() {
            return Ok(());
        }
        // Without this the kernel would do so some moments later.
        let detached = bpf::open_pin(&path, Access::ReadWrite)
            .and_then(|first| bpf::detach_link(first.as_fd()));
        detached.map_err(|error| failed_at(name, device, *side, error.into()))?;
        pinning::rename(&behind, &path)
    })
}

/// Takes off the filters that [`attach_behind`] has attached, once [`sync`] has replaced those in front.
pub(super) fn detach_behind(mode: TcMode, places: Places<'_>) -> Vec<Error> {
    if mode == TcMode::Tcx {
        return Vec::new();
    }
    each(places, |Place { device, side }, name, way| {
        let detached = name_now(device).and_then(|name| Ok(clsact::detach_behind(&name, way)?));
        detached.map_err(|source| failed_at(name, device, *side, source))
    })
}

/// Does something for each program of each place; what failed, but for devices that have gone.
fn each(
    places: Places<'_>,
    mut act: impl FnMut(&Place, &'static str, TcAttachType) -> Result<(), Error>,
) -> Vec<Error> {
    let mut errors = Vec::new();
    for place in places.wanted {
        let done = places.programs_of(place).try_for_each(|(name, way)| act(place, name, way));
        let is_there = || node::device::name_of(place.device.index).is_some();
        errors.extend(done.err().filter(|_| is_there()));
    }
    errors
}

/// The program that translates answers to pods comes later to places that are served already.
fn before_had(places: Places<'_>, name: &str) -> bool {
    places.answered_pods || name != program::POD_EGRESS
}

/// Devices that have programs, as far as pins tell.
pub(in crate::dataplane) fn served(dirs: &PinDirs) -> Served {
    let mut served = Served::default();
    for entry in fs::read_dir(&dirs.links).into_iter().flatten().flatten() {
        let name = entry.file_name();
        match parse_link(&name.to_string_lossy()) {
            (program::POD_INGRESS, Some(index)) => drop(served.pods.insert(index)),
            (program::EGRESS | program::EGRESS_L3, Some(index)) => {
                served.uplinks.insert(index);
            }
            _ => {}
        }
    }
    served
}

/// Whether a link is one that the daemon holds: of the cgroup, or of a device that leads to no pod.
pub(super) fn is_held(pin: &Path) -> bool {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    !pinning::is_fresh_name(pin)
        && !matches!(parse_link(&name).0, program::POD_INGRESS | program::POD_EGRESS)
}

/// Whether programs have been attached to the loopback device, as far as pins tell.
pub(super) fn is_on_loopback(dirs: &PinDirs) -> bool {
    dirs.device_link(program::NODE_EGRESS, node::LOOPBACK).exists()
}

fn attach(
    object: &mut Ebpf,
    dirs: &PinDirs,
    mode: TcMode,
    Place { device, side }: &Place,
    name: &'static str,
    direction: TcAttachType,
) -> Result<Attached, Error> {
    let failed = |source| failed_at(name, device, *side, source);
    let program = classifier(object, name).map_err(failed)?;
    if mode == TcMode::Clsact {
        let name = name_now(device).map_err(failed)?;
        return clsact::attach(program, &name, direction).map_err(|error| failed(error.into()));
    }
    let path = dirs.device_link(name, device.index);
    let Some(link) = link(program, &path, device, direction).map_err(failed)? else {
        return Ok(Attached::AsBefore);
    };
    pinning::replace(&path, |path| link.pin(path))?;
    Ok(Attached::Anew)
}

fn failed_at(program: &'static str, device: &Device, side: Side, source: Cause) -> Error {
    let remedy = match side {
        Side::Uplink => {
            "leave the device out with --devices if it is not meant to carry Service traffic"
        }
        Side::Pod => "leave the device out with --pod-devices if it does not lead to a pod",
        Side::Node => {
            "processes of this node reach no Service by its own addresses until it is: see \
             `tc qdisc show dev lo`"
        }
    };
    Error::Attach { program, target: format!("device {}", device.name), remedy, source }
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Cause> {
    let program = object.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| Missing.into())
}

/// A new link right behind the one that is pinned at `path`; `None`: there is none of this device, or the one pinned
/// at `behind` has got the program.
fn link_behind(
    program: &mut SchedClassifier,
    path: &Path,
    behind: &Path,
    device: &Device,
    direction: TcAttachType,
) -> Result<Option<FdLink>, Cause> {
    let place = LinkPlace::Device(device.index);
    let first = bpf::open_pin(path, Access::ReadWrite)?;
    if bpf::link_info(first.as_fd())?.place != place
        || pinning::update_link(behind, place, program.fd()?.as_fd())?
    {
        return Ok(None);
    }
    let first = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(path)?))?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::after_link(&first)?);
    let link = program.attach_with_options(&name_now(device)?, direction, order)?;
    Ok(Some(FdLink::try_from(program.take_link(link)?)?))
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
    let link = program.attach_with_options(&name_now(device)?, direction, order)?;
    Ok(Some(FdLink::try_from(program.take_link(link)?)?))
}

/// It may have been renamed since it was looked at, and another may have its name.
fn name_now(device: &Device) -> Result<String, Cause> {
    node::device::name_of(device.index)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV).into())
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
        let index = place.device.index;
        places.programs_of(place).map(move |(name, _)| dirs.device_link(name, index))
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
