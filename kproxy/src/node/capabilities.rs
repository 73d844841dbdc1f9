//! The capabilities of this process: whether they are enough, and giving up those that it has no use for.

use std::{fs, os::unix::fs::MetadataExt as _};

use aya::util::KernelVersion;
use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// Nothing works without them.
const NEEDED: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
/// What else is of use: to enter pods' network namespaces; and, where kproxy is started with all of root's
/// rights, to read a kubeconfig or manifests of another user, to find namespaces that have no name, and to
/// serve metrics on a low port.
const USEFUL: [Capability; 4] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_NET_BIND_SERVICE,
];
/// Inode number of the initial user namespace (PROC_USER_INIT_INO, include/linux/proc_ns.h).
const INITIAL_NAMESPACE: u64 = 0xefff_fffd;

/// Why this process has too few rights.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Some are not there.
    #[error(
        "capabilities are missing: {}; run kproxy as root, or grant what deploy/kproxy.yaml grants: CAP_BPF, \
         CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN", .0.join(", ")
    )]
    Lacking(Vec<String>),
    /// Capabilities count in the initial user namespace alone.
    #[error(
        "this is a user namespace, where the kernel lets nobody load BPF programs; run kproxy outside of one \
         (a pod: without hostUsers: false; a container: not rootless)"
    )]
    UserNamespace,
}

/// Whether this process may do what nothing works without.
///
/// # Errors
/// It may not. Where the kernel does not say, whatever is tried will tell.
pub(crate) fn check() -> Result<(), Error> {
    if let Ok(held) = caps::read(None, CapSet::Effective) {
        let lacking = lacking(&held);
        if !lacking.is_empty() {
            return Err(Error::Lacking(lacking));
        }
    }
    let namespace = fs::metadata("/proc/self/ns/user");
    if namespace.is_ok_and(|namespace| namespace.ino() != INITIAL_NAMESPACE) {
        return Err(Error::UserNamespace);
    }
    Ok(())
}

/// Whether this process may mount file systems and look into namespaces of pods. Where the kernel does not say, it
/// may not.
pub(crate) fn may_enter_namespaces() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false)
}

/// Names of what is needed and not among `held`. CAP_SYS_ADMIN stands for what it was split into
/// (bpf_capable(), perfmon_capable(), include/linux/capability.h).
fn lacking(held: &CapsHashSet) -> Vec<String> {
    let is_there = |wanted: &Capability| {
        held.contains(wanted)
            || *wanted != Capability::CAP_NET_ADMIN && held.contains(&Capability::CAP_SYS_ADMIN)
    };
    NEEDED.iter().filter(|wanted| !is_there(wanted)).map(ToString::to_string).collect()
}

/// Gives up every capability that kproxy has no use for, for this thread and those that it starts, and for
/// programs that it runs; nothing gains one by exec any more.
///
/// # Errors
/// The kernel refused; they are kept then.
pub(crate) fn keep_useful() -> Result<(), CapsError> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| format!("no_new_privs: {error}"))?;
    let useful = useful();
    let effective = caps::read(None, CapSet::Effective)?;
    // Without this one there is no say in what exec() may grant, and without new privileges it grants no more.
    if effective.contains(&Capability::CAP_SETPCAP) {
        for bound in caps::all() {
            if !useful.contains(&bound) && caps::has_cap(None, CapSet::Bounding, bound)? {
                caps::drop(None, CapSet::Bounding, bound)?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable)?;
    let kept: CapsHashSet = effective.intersection(&useful).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn useful() -> CapsHashSet {
    // Before 5.11 maps count against the limit of locked memory, which this one may raise.
    let counts_memory =
        KernelVersion::current().is_ok_and(|now| now < KernelVersion::new(5, 11, 0));
    let raise = counts_memory.then_some(Capability::CAP_SYS_RESOURCE);
    NEEDED.into_iter().chain(USEFUL).chain(raise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_is_named_and_sys_admin_stands_for_what_it_was_split_into() {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
        for (held, wanted) in [
            (&[][..], &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"][..]),
            (&[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON], &[]),
            (&[CAP_BPF, CAP_NET_ADMIN], &["CAP_PERFMON"]),
            (&[CAP_SYS_ADMIN], &["CAP_NET_ADMIN"]),
            (&[CAP_SYS_ADMIN, CAP_NET_ADMIN], &[]),
        ] {
            assert_eq!(lacking(&held.iter().copied().collect()), wanted, "{held:?}");
        }
    }
}
