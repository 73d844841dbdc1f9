//! Why the daemon cannot start or go on.

use std::io;

use super::run_dir;
use crate::{control, dataplane, node, source};

/// What ends the daemon, other than a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The process has too few rights.
    #[error(transparent)]
    Rights(#[from] node::capabilities::Error),
    /// The asynchronous runtime cannot be made.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// Signals cannot be heard.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// The run folder is taken, or cannot be used.
    #[error(transparent)]
    RunDir(#[from] run_dir::Error),
    /// The data path cannot be opened.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// The folder of cgroups that was asked for is none.
    #[error(transparent)]
    Cgroup(#[from] node::cgroup::Error),
    /// The kernel does not say which network namespace this is.
    #[error("ask for the identity of the network namespace")]
    Netns(#[source] io::Error),
    /// Devices and addresses cannot be followed.
    #[error(transparent)]
    Node(#[from] node::watch::Error),
    /// The kernel does not say which source ports are free.
    #[error(
        "find free source ports in net.ipv4.ip_local_port_range; mount /proc with its folder sys, or name \
         the ports with --snat-ports"
    )]
    SourcePorts(#[source] io::Error),
    /// The metrics contradict each other.
    #[error("make the metrics")]
    Metrics(#[source] prometheus::Error),
    /// The control loop has ended.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The API server cannot be watched.
    #[error(transparent)]
    Kube(#[from] source::kube::Error),
    /// The folder of manifests cannot be followed.
    #[error(transparent)]
    Manifests(#[from] source::manifests::Error),
    /// The source has nothing more to tell.
    #[error("the source of Services has ended; restart kproxy")]
    SourceEnded,
}
