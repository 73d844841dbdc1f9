//! What can go wrong beneath the plan: loading, pinning, attaching.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Errors of the data path, each with what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The BPF file system is missing or could not be mounted.
    #[error(transparent)]
    Bpffs(#[from] crate::node::bpffs::Error),
    /// No cgroup v2 hierarchy was found.
    #[error(transparent)]
    Cgroup(#[from] crate::node::cgroup::Error),
    /// kproxy's nftables table could not be changed.
    #[error(transparent)]
    Nft(#[from] crate::node::nft::Error),
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
        "could not load the BPF object: {why}; kproxy needs Linux 5.10 or newer with BTF \
             (/sys/kernel/btf/vmlinux), and root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Load {
        /// The whole chain of causes.
        why: String,
    },
    /// The kernel's verifier refused a program.
    #[error(
        "the kernel refused the BPF program {program}: {why}; please report this with your \
             kernel version. End of the verifier's log:\n{log}"
    )]
    Verifier {
        /// Program name.
        program: String,
        /// The error of the call.
        why: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A file below the BPF file system could not be handled.
    #[error("could not {what} {}: {error}; check that the folder is on a BPF file system and \
             that no other kproxy uses it", path.display())]
    Pin {
        /// What was tried: `pin`, `open`, `remove`, `make`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A map could not be read or mapped into memory.
    #[error("could not read the maps: {0}; restart kproxy, or run `kproxy cleanup` first")]
    Maps(io::Error),
    /// A program could not be attached.
    #[error("could not attach {program} to {target}: {why}; {remedy}")]
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

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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
