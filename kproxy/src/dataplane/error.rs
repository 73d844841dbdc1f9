//! What can go wrong beneath the plan: loading, pinning, attaching.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{model::Problem, node};

/// Errors of the data path, each with what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The BPF file system is missing or could not be mounted.
    #[error(transparent)]
    Bpffs(#[from] node::bpffs::Error),
    /// No cgroup v2 tree was found.
    #[error(transparent)]
    Cgroup(#[from] node::cgroup::Error),
    /// kproxy's nftables table could not be changed.
    #[error(transparent)]
    Nft(#[from] node::nft::Error),
    /// A pinned map has another layout than this version's.
    #[error(
        "the pinned map {} is not the one of this kproxy ({why}); run the kproxy that made it, or \
         `kproxy cleanup` to start anew (traffic to Services stops until kproxy runs again)",
        path.display()
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// How it differs.
        why: String,
    },
    /// The BPF object could not be loaded.
    #[error(
        "load the BPF object: {why}; kproxy needs Linux 5.10 or newer with BTF \
         (/sys/kernel/btf/vmlinux), and root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Load {
        /// The whole chain of causes.
        why: String,
    },
    /// Before Linux 5.11: the limit of locked memory is too low for the maps.
    #[error(
        "load the BPF object: {why}; before Linux 5.11 maps count against the limit of locked \
         memory, which is {limit} bytes here and may not be raised: give kproxy CAP_SYS_RESOURCE, \
         or lift the limit for it (systemd: LimitMEMLOCK=infinity; containers: the ulimit memlock \
         of the runtime)"
    )]
    Memlock {
        /// The whole chain of causes.
        why: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The kernel's verifier refused a program.
    #[error(
        "the kernel refused the BPF program {program}: {why}; please report this with your kernel \
         version. End of the verifier's log:\n{log}"
    )]
    Verifier {
        /// Program name.
        program: String,
        /// The error of the call.
        why: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// Another process works on the same pins.
    #[error(
        "another kproxy is at work on {}; stop it first, or give this one a folder of its own \
         with --bpffs-root", path.display()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file below the BPF file system could not be handled.
    #[error(
        "{what} {}: {error}; check that the folder is on a BPF file system, that you are root, and \
         that no other kproxy uses it",
        path.display()
    )]
    Pin {
        /// What was tried: `pin`, `open`, `remove`, `make`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A map could not be read or mapped into memory.
    #[error("read the maps: {0}; restart kproxy, or run `kproxy cleanup` first")]
    Maps(io::Error),
    /// A program could not be attached or taken off.
    #[error("attach {program} to {target}: {why}; {remedy}")]
    Attach {
        /// Program name.
        program: String,
        /// The cgroup or device.
        target: String,
        /// What the kernel said.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl Error {
    /// The error as a problem that does not stop the rest.
    pub(crate) fn to_problem(&self) -> Problem {
        match self {
            Self::Attach { program, target, why, remedy } => {
                Problem::new(target, format!("attach {program}: {why}"), *remedy)
            }
            Self::Pin { what, path, error } => Problem::new(
                path.display().to_string(),
                format!("{what}: {error}"),
                "check that no other kproxy uses the folder",
            ),
            other => Problem::new("data path", other.to_string(), "see the message"),
        }
    }
}

/// An error with all its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
