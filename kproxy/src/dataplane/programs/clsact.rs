//! Filters of the clsact qdisc: how programs are attached before kernel 6.6, which has no links for tc.
//! Filters are replaced in one step as well.

use std::io;

use aya::programs::{
    Link as _, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use kproxy_common::abi::program;

use super::place::Attached;
use crate::dataplane::error::Error;

/// Priority of kproxy's filters: the kernel runs lower ones first. An odd number of our own, so that
/// no other program's filter is replaced by mistake.
pub(in crate::dataplane) const PRIORITY: u16 = 19_312;
/// The kernel runs these right after them.
const BEHIND: u16 = PRIORITY + 1;
/// Handle of kproxy's filters.
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Adds kproxy's filter, or gives the one that is there the program.
pub(super) fn attach(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<Attached, ProgramError> {
    attach_as(program, device, direction, PRIORITY)
}

/// Adds a filter behind kproxy's, or gives the one that is there the program.
pub(super) fn attach_behind(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<Attached, ProgramError> {
    attach_as(program, device, direction, BEHIND)
}

/// Removes what [`attach_behind`] has added.
pub(super) fn detach_behind(device: &str, direction: TcAttachType) -> Result<(), ProgramError> {
    let link = SchedClassifierLink::attached(device, direction, BEHIND, HANDLE, None)?;
    match link.detach() {
        Err(ProgramError::TcError(error)) if !is_absent(&error) => Err(error.into()),
        Err(ProgramError::TcError(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

fn attach_as(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
    priority: u16,
) -> Result<Attached, ProgramError> {
    match tc::qdisc_add_clsact(device) {
        Ok(()) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let present = SchedClassifierLink::attached(device, direction, priority, HANDLE, None)?;
    let (link, attached) = match program.attach_to_link(present) {
        Ok(link) => (link, Attached::AsBefore),
        Err(ProgramError::TcError(TcError::NetlinkError(error)))
            if error.raw_os_error() == Some(libc::ENOENT) =>
        {
            let options = NlOptions { priority, handle: HANDLE, ..NlOptions::default() };
            let options = TcAttachOptions::Netlink(options);
            (program.attach_with_options(device, direction, options)?, Attached::Anew)
        }
        Err(error) => return Err(error),
    };
    // The filter must outlive the daemon; dropping the link would remove it.
    std::mem::forget(program.take_link(link)?);
    Ok(attached)
}

/// Removes kproxy's filters, found by the names of its programs, from a device, the way there first.
/// Whether there were any.
pub(super) fn detach(device: &str) -> Result<bool, Error> {
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
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let (device, source) = (device.to_owned(), error.into());
                return Err(Error::Detach { program: name, device, source });
            }
        }
    }
    Ok(any)
}

/// No such filter, no clsact qdisc, or the device itself is gone.
fn is_absent(error: &TcError) -> bool {
    const ABSENT: [i32; 4] = [libc::ENOENT, libc::EINVAL, libc::ENODEV, libc::ENXIO];
    let code = match error {
        TcError::IoError(error) if error.kind() == io::ErrorKind::NotFound => return true,
        TcError::IoError(error) => error.raw_os_error(),
        TcError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    };
    code.is_some_and(|code| ABSENT.contains(&code))
}
