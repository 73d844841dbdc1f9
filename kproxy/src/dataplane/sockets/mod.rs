//! Closes connected UDP sockets whose backend serves no more.
//!
//! Such a socket sends to the backend that connect() gave it, with no hook in between, and would do
//! so for ever. Closed with an error, its owner connects again and gets a live backend. The kernel
//! lists the sockets of a network namespace, and a program that is run for each of them tells what
//! the socket programs keep in it; so a socket that went to the same pod without a Service is told
//! apart: nothing is kept in it. Unconnected sockets need no help, they are asked at each datagram.

mod diag;

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::programs::SchedClassifier;
use kproxy_common::{
    abi::program::UDP_SOCKET,
    socket::{Peer, SocketQuery},
};
use nix::sched::{CloneFlags, setns};

use self::diag::{Connected, Diag};
use super::{Dataplane, Error, error::chain, sys};
use crate::model::{Family, Problem};

/// Finds and closes sockets; made once.
#[derive(Debug)]
pub struct SocketCloser {
    program: OwnedFd,
}

/// What [`SocketCloser::close`] did.
#[derive(Debug, Default)]
pub struct Closed {
    /// Sockets that were closed.
    pub sockets: usize,
    /// Network namespaces that were looked at.
    pub namespaces: usize,
    /// Why the sockets of some namespaces were left alone.
    pub problem: Option<Problem>,
}

/// What a connected UDP socket dialled and was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated(Peer);

impl Dataplane {
    /// What closes sockets of this data path.
    ///
    /// # Errors
    /// The kernel refuses the program that looks into sockets.
    pub fn socket_closer(&mut self) -> Result<SocketCloser, Error> {
        let failed = |why: String| Error::Load { why: format!("program {UDP_SOCKET}: {why}") };
        let program = self.object.program_mut(UDP_SOCKET);
        let program = program.ok_or_else(|| failed("it is not there".to_owned()))?;
        let program: &mut SchedClassifier =
            program.try_into().map_err(|error| failed(chain(&error)))?;
        program.load().map_err(|error| failed(chain(&error)))?;
        let fd = program.fd().map_err(|error| failed(chain(&error)))?;
        let program = fd.as_fd().try_clone_to_owned().map_err(|error| failed(chain(&error)))?;
        Ok(SocketCloser { program })
    }

    /// Whether the backend of a socket may go on: it still serves what the socket dialled. A
    /// frontend that is gone altogether takes no backend with it.
    pub fn may_go_on(&self, socket: &Translated) -> bool {
        let peer = &socket.0;
        self.writer
            .udp_service(peer.frontend, peer.frontend_port)
            .is_none_or(|index| self.writer.serves(index, peer.backend, peer.backend_port))
    }
}

impl SocketCloser {
    /// Closes the sockets of the calling thread's own network namespace and of `others` whose
    /// backend may not go on. The thread is left in one of them: it should end after this.
    pub fn close(&self, others: &[File], may_go_on: impl Fn(&Translated) -> bool) -> Closed {
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
        sys::run_on(self.program.as_fd(), &mut query)?;
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
