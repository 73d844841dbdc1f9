//! What can go wrong beneath the plan: loading, pinning, attaching, reading maps, cleaning up.
//!
//! A text says what was tried and, in parentheses, what to do; why it failed is its source, which
//! [`with_causes`] adds.

use std::{fmt, io, path::PathBuf};

use aya::maps::{MapError, MapType};
use thiserror::Error;

use crate::{errors::with_causes, model::Problem, node};

/// What every start needs.
const NEEDS: &str = "kproxy needs Linux 5.10 or newer with BTF in /sys/kernel/btf/vmlinux; CAP_BPF, \
                     CAP_NET_ADMIN and CAP_PERFMON; and no seccomp profile or security module that forbids bpf(2)";

/// Errors of the data path, each with what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The BPF file system is missing or could not be mounted.
    #[error(transparent)]
    Bpffs(#[from] node::bpffs::Error),
    /// No cgroup v2 tree was found.
    #[error(transparent)]
    Cgroup(#[from] node::cgroup::Error),
    /// kproxy's nftables table could not be removed.
    #[error(transparent)]
    Nft(#[from] node::nft::Error),
    /// Another process works on the same pins.
    #[error(
        "another kproxy is at work on {}; stop it first, or give this one a folder of its own \
         with --bpffs-root", path.display()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A pinned map has another layout than this version's.
    #[error(
        "the pinned map {} is not the one of this kproxy: it has {found} instead of {wanted}; run \
         the kproxy that made it, or `kproxy cleanup` to start anew (traffic to Services stops \
         until kproxy runs again)",
        path.display()
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: MapShape,
        /// What it should be.
        wanted: MapShape,
    },
    /// The BPF object could not be loaded.
    #[error("load the BPF object ({NEEDS})")]
    Load {
        /// Why.
        #[source]
        source: Cause,
    },
    /// Before Linux 5.11: the limit of locked memory is too low for the maps.
    #[error(
        "load the BPF object (before Linux 5.11 maps count against the limit of locked memory, \
         which is {limit} bytes here and may not be raised: give kproxy CAP_SYS_RESOURCE, or lift \
         the limit for it; systemd: LimitMEMLOCK=infinity; containers: the ulimit memlock of the \
         runtime)"
    )]
    Memlock {
        /// The limit in bytes.
        limit: u64,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A program of the BPF object could not be loaded.
    #[error("load the BPF program {program} ({NEEDS})")]
    Program {
        /// Program name.
        program: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The kernel's verifier refused a program.
    #[error(
        "the kernel refused the BPF program {program} (please report this with your kernel version, and with \
         the verifier's log above)"
    )]
    Verifier {
        /// Program name.
        program: &'static str,
        /// Why.
        #[source]
        source: Rejection,
    },
    /// A map could not be used.
    #[error("{action} the map {map} (restart kproxy, or run `kproxy cleanup` first)")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Map name.
        map: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A file below the BPF file system could not be handled.
    #[error(
        "{action} {} (check that the folder is on a BPF file system that may be written, that you are root, \
         and that no other kproxy uses it)",
        path.display()
    )]
    Pin {
        /// What was tried: `make`, `lock`, `open`, `pin`, `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A program could not be attached.
    #[error("attach {program} to {target} ({remedy})")]
    Attach {
        /// Program name.
        program: &'static str,
        /// The cgroup or device.
        target: String,
        /// What to do.
        remedy: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A clsact filter could not be removed.
    #[error("take the filter {program} off device {device} (remove it with `tc filter del`)")]
    Detach {
        /// Program name.
        program: &'static str,
        /// Device name.
        device: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The devices whose filters are to be removed could not be listed.
    #[error("list the devices whose clsact filters are to be removed")]
    Devices(#[source] io::Error),
    /// Pod-facing ports could not be told that answers are translated.
    #[error("let pod-facing ports open flows (restart kproxy)")]
    PodFlows(#[source] MapError),
}

/// What the kernel said, or aya on its behalf.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A program or map that this data path is made of is not in the BPF object, or is of another kind.
#[derive(Debug, Error)]
#[error("the BPF object lacks it")]
pub(super) struct Missing;

/// The answer of the verifier.
#[derive(Debug, Error)]
#[error("{error}: {reason}")]
pub struct Rejection {
    /// The error of the call.
    pub error: io::Error,
    /// What it said last.
    pub reason: String,
}

/// What sort of map one is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MapShape {
    /// Its type; `None` for one that aya does not know.
    pub kind: Option<MapType>,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// Its capacity, where that is part of the layout.
    pub entries: Option<u32>,
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key, value, entries } = self;
        match kind {
            Some(kind) => write!(f, "type {kind:?}, ")?,
            None => f.write_str("an unknown type, ")?,
        }
        write!(f, "keys of {key} and values of {value} bytes")?;
        entries.map_or(Ok(()), |entries| write!(f, " and room for {entries} entries"))
    }
}

impl Error {
    /// For use with `map_err`: something could not be done with a map.
    pub(super) fn of_map<E: Into<Cause>>(
        action: &'static str,
        map: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Map { action, map, source: source.into() }
    }

    /// For use with `map_err`: something could not be done with a file of the BPF file system.
    pub(super) fn of_pin<E: Into<Cause>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Pin { action, path: path.into(), source: source.into() }
    }

    /// The error as a problem that does not stop the rest.
    pub(crate) fn to_problem(&self) -> Problem {
        match self {
            Self::Attach { program, target, remedy, source } => Problem::new(
                target,
                format!("attach {program}: {}", with_causes(source.as_ref())),
                *remedy,
            ),
            Self::Detach { program, device, source } => Problem::new(
                format!("device {device}"),
                format!("take the filter {program} off: {}", with_causes(source.as_ref())),
                "remove it with `tc filter del`",
            ),
            Self::Pin { action, path, source } => Problem::new(
                path.display().to_string(),
                format!("{action}: {}", with_causes(source.as_ref())),
                "check that no other kproxy uses the folder",
            ),
            Self::PodFlows(source) => Problem::new(
                "pod-facing ports",
                format!(
                    "they cannot be told that answers are translated: {}; pods whose own packets \
                     dial Services get no answer",
                    with_causes(source)
                ),
                "restart kproxy",
            ),
            other => Problem::new("data path", with_causes(other), "see the message"),
        }
    }
}
