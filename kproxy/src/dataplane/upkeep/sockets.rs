//! Closes connected UDP sockets whose backend serves no more.
//!
//! Such a socket sends to the backend that connect() gave it, with no hook in between, and would do
//! so for ever. Closed with an error, its owner connects again and gets a live backend. The kernel
//! lists the sockets of a network namespace, and a program that is run for each of them tells what
//! the socket programs keep in it; so a socket that went to the same pod without a Service is told
//! apart: nothing is kept in it. Unconnected sockets need no help, they are asked at each datagram.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use kproxy_common::{
    net::{Addr, Port},
    socket::{Peer, SocketQuery},
};
use nix::sched::{CloneFlags, setns};

use crate::{
    dataplane::kernel::{
        bpf,
        diag::{Connected, Diag},
    },
    model::{Family, Problem},
};

/// Finds and closes sockets; made once.
#[derive(Debug)]
pub(crate) struct SocketCloser {
    program: OwnedFd,
}

/// What [`SocketCloser::close`] did.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// Sockets that were closed.
    pub(crate) sockets: usize,
    /// Network namespaces that were looked at.
    pub(crate) namespaces: usize,
    /// Why the sockets of some namespaces were left alone.
    pub(crate) problem: Option<Problem>,
}

/// What a connected UDP socket dialled and was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translated(Peer);

impl Translated {
    /// The frontend that the socket dialled.
    pub(crate) const fn frontend(&self) -> (Addr, Port) {
        (self.0.frontend, self.0.frontend_port)
    }

    /// The backend that it was given.
    pub(crate) const fn backend(&self) -> (Addr, Port) {
        (self.0.backend, self.0.backend_port)
    }
}

impl SocketCloser {
    /// `program` is [`kproxy_common::abi::program::UDP_SOCKET`].
    pub(crate) const fn new(program: OwnedFd) -> Self {
        Self { program }
    }

    /// Closes the sockets of the calling thread's own network namespace and of `others` whose
    /// backend may not go on. The thread is left in one of them: it should end after this.
    pub(crate) fn close(&self, others: &[File], may_go_on: impl Fn(&Translated) -> bool) -> Closed {
        let mut closed = Closed::default();
        if let Err(error) = self.close_here(&mut closed, &may_go_on) {
            closed.problem.get_or_insert_with(|| problem("sockets cannot be listed", &error));
        }
        for namespace in others {
            if let Err(error) = setns(namespace, CloneFlags::CLONE_NEWNET) {
                let what = "the network namespaces of pods cannot be entered";
                closed.problem.get_or_insert_with(|| problem(what, &error.into()));
                continue;
            }
            if let Err(error) = self.close_here(&mut closed, &may_go_on) {
                closed.problem.get_or_insert_with(|| problem("sockets cannot be listed", &error));
            }
        }
        closed
    }

    fn close_here(
        &self,
        closed: &mut Closed,
        may_go_on: impl Fn(&Translated) -> bool,
    ) -> io::Result<()> {
        let diag = Diag::open()?;
        closed.namespaces += 1;
        for family in [Family::V4, Family::V6] {
            for socket in diag.connected_udp(family)? {
                let Some(translated) = self.translated(&socket)? else { continue };
                if may_go_on(&translated) {
                    continue;
                }
                match diag.destroy(&socket) {
                    Ok(()) => closed.sockets += 1,
                    Err(error) => {
                        let what = "sockets cannot be closed";
                        closed.problem.get_or_insert_with(|| problem(what, &error));
                    }
                }
            }
        }
        Ok(())
    }

    /// What the socket dialled, if it is connected to the backend that a program gave it.
    fn translated(&self, socket: &Connected) -> io::Result<Option<Translated>> {
        let (local, remote) = (socket.local, socket.remote);
        let mut query = SocketQuery {
            remote: remote.0,
            local: local.0,
            remote_port: remote.1,
            local_port: local.1,
            ..SocketQuery::default()
        };
        bpf::run_on(self.program.as_fd(), &mut query)?;
        Ok((query.peer.frontend_port.get() != 0).then_some(Translated(query.peer)))
    }
}

fn problem(what: &str, error: &io::Error) -> Problem {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "grant CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF",
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT) => {
            "use a kernel with CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY"
        }
        _ => "report a bug with this message",
    };
    Problem::new(
        "UDP sockets",
        format!(
            "{what}: {error}; a pod's UDP socket that is connected to an endpoint that has gone \
             gets no error and waits"
        ),
        remedy,
    )
}
