//! Which process has which socket.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
};

use nix::sys::stat::fstat;
use procfs::process::{FDInfo, FDTarget, Process, all_processes};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::Serialize;

/// A process that has a socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Owner {
    /// Its id, in the namespace of the asking process.
    pub pid: i32,
    /// Name of its program, at most 15 characters of it.
    pub name: String,
    /// Host name that it has for itself: in Kubernetes the name of its pod, unless that uses the node's network; `None`:
    /// it has the node's.
    pub host: Option<String>,
}

/// The sockets of this node's processes, by inode number.
#[derive(Debug, Default)]
pub(crate) struct Sockets(BTreeMap<u32, Shared>);

/// A socket of some processes.
#[derive(Debug)]
struct Shared {
    owners: Vec<Owner>,
    /// A process that has it, and its number there.
    at: (i32, i32),
}

impl Sockets {
    /// Looks at every process; those that cannot be looked into are left out.
    pub(crate) fn find() -> Self {
        let mut found = BTreeMap::new();
        let own = uts_of("self");
        for process in all_processes().into_iter().flatten().flatten() {
            let sockets = sockets(&process);
            if sockets.is_empty() {
                continue;
            }
            let Some(owner) = owner(&process, own) else { continue };
            for (inode, number) in sockets {
                let at = (process.pid, number);
                let shared = found.entry(inode).or_insert(Shared { owners: Vec::new(), at });
                if !shared.owners.contains(&owner) {
                    shared.owners.push(owner.clone());
                }
            }
        }
        Self(found)
    }

    /// The processes that have a socket.
    pub(crate) fn owners(&self, inode: u32) -> &[Owner] {
        self.0.get(&inode).map_or(&[], |shared| &shared.owners)
    }

    /// The socket itself (pidfd_getfd(2), kernel 5.6; it takes the right to trace the process). `None`: no process
    /// has it, or may be asked for it.
    pub(crate) fn open(&self, inode: u32) -> Option<OwnedFd> {
        let (pid, number) = self.0.get(&inode)?.at;
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
        // Its number may be another one's by now.
        let is_it = fstat(&socket).is_ok_and(|stat| stat.st_ino == u64::from(inode));
        is_it.then_some(socket)
    }
}

/// Inode numbers of the sockets that a process has, and their numbers there.
fn sockets(process: &Process) -> Vec<(u32, i32)> {
    let of_socket = |fd: FDInfo| match fd.target {
        // Inode numbers of sockets have 32 bits (struct inet_diag_msg).
        FDTarget::Socket(inode) => Some((u32::try_from(inode).ok()?, fd.fd)),
        _ => None,
    };
    process.fd().into_iter().flatten().flatten().filter_map(of_socket).collect()
}

fn owner(process: &Process, own: Option<u64>) -> Option<Owner> {
    let pid = process.pid;
    let has_own_name = uts_of(&pid.to_string()) != own;
    let host = has_own_name.then(|| fs::read_to_string(format!("/proc/{pid}/root/etc/hostname")));
    Some(Owner {
        pid,
        name: process.stat().ok()?.comm,
        host: host.and_then(Result::ok).map(|name| name.trim().to_owned()),
    })
}

/// Inode number of the namespace of a process's host name.
fn uts_of(process: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/uts")).ok().map(|namespace| namespace.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_with_its_process() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket));
        let link = fs::read_link(link).unwrap().to_string_lossy().into_owned();
        let inode = link.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap();
        let sockets = Sockets::find();
        let owners = sockets.owners(inode);
        assert!(owners.iter().any(|owner| owner.pid == std::process::id() as i32), "{owners:?}");
        assert_eq!(owners[0].host, None);
        let again = std::net::UdpSocket::from(sockets.open(inode).unwrap());
        assert_eq!(again.local_addr().unwrap(), socket.local_addr().unwrap());
        assert_eq!(sockets.owners(0), []);
    }
}
