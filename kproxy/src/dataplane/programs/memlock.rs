//! The limit of locked memory, against which maps and programs count before kernel 5.11.

use std::{error::Error, io};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::dataplane::kernel::release;

/// Lifts the limit (commit d5299b67dd59 and its series moved maps and programs to the memory cgroup).
/// Returns it in bytes if there is one that counts and cannot be lifted, which takes CAP_SYS_RESOURCE.
pub(super) fn raise_limit() -> Option<u64> {
    let locked = Resource::RLIMIT_MEMLOCK;
    if setrlimit(locked, RLIM_INFINITY, RLIM_INFINITY).is_ok() || release::is_at_least(5, 11) {
        return None;
    }
    let (_, most) = getrlimit(locked).ok()?;
    if let Err(error) = setrlimit(locked, most, most) {
        tracing::debug!(%error, "could not raise the limit of locked memory");
    }
    (most != RLIM_INFINITY).then_some(most)
}

/// Whether the kernel said EPERM, which is what it says when the limit is reached
/// (bpf_charge_memlock, kernel/bpf/syscall.c of 5.10).
pub(super) fn is_eperm(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error() == Some(libc::EPERM))
}
