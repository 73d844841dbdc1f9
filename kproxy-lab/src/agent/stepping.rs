//! Sockets that are led step by step.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use parking_lot::Mutex;
use rustix::net::connect_unspec;
use socket2::SockRef;

use crate::agent::client::{describe, socket};
use crate::traffic::line::{Answer, who};
use crate::traffic::{Seen, Step, Transport};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The sockets of an agent.
#[derive(Default)]
pub(crate) struct Stepping {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Stepped>>>,
}

struct Stepped {
    /// The standard library's calls work on sockets of all kinds.
    socket: UdpSocket,
    is_stream: bool,
    token: AtomicU64,
}

impl Stepping {
    /// Makes a socket and binds it.
    pub(crate) fn open(&self, transport: Transport, from: SocketAddr) -> Result<u64> {
        let socket = socket(transport, from)?;
        socket.bind(&from.into()).with_context(|| format!("bind to {from}"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let is_stream = matches!(transport, Transport::Tcp | Transport::Mptcp);
        let stepped = Stepped { socket: socket.into(), is_stream, token: AtomicU64::new(0) };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Arc::new(stepped));
        Ok(number)
    }

    /// Has a socket do something.
    pub(crate) fn step(&self, number: u64, step: Step) -> Result<Seen> {
        let socket = self.open.lock().get(&number).cloned().context("no such socket")?;
        Ok(socket.step(step).unwrap_or_else(|error| Seen::Failed(name(&error))))
    }

    /// Closes a socket.
    pub(crate) fn close(&self, number: u64) -> Result<()> {
        self.open.lock().remove(&number).map(drop).context("no such socket")
    }
}

fn name(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout".to_owned(),
        _ => describe(error),
    }
}

impl Stepped {
    fn step(&self, step: Step) -> io::Result<Seen> {
        match step {
            Step::Connect(to) => {
                SockRef::from(&self.socket).connect(&to.into())?;
                Ok(Seen::Done)
            }
            Step::Dissolve => {
                connect_unspec(&self.socket)?;
                Ok(Seen::Done)
            }
            Step::Peer => self.socket.peer_addr().map(Seen::Peer),
            Step::Ask => self.ask(|request| self.socket.send(request)),
            Step::AskAt(to) => self.ask(|request| self.socket.send_to(request, to)),
            Step::AskFrom(from, to) => self.ask(|request| self.send_from(from, to, request)),
        }
    }

    fn ask(&self, send: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<Seen> {
        let token = self.token.fetch_add(1, Ordering::Relaxed);
        send(who(token, 0).as_bytes())?;
        let mut line = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let (length, source) = if self.is_stream {
                (self.socket.recv(&mut buffer)?, None)
            } else {
                let (length, source) = self.socket.recv_from(&mut buffer)?;
                (length, Some(source))
            };
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            line.extend_from_slice(&buffer[..length]);
            if line.ends_with(b"\n") {
                let answer: Answer = serde_json::from_slice(&line)?;
                // Late answers to earlier requests are passed over.
                if answer.token == token {
                    return Ok(Seen::Answered { server: answer.server, source });
                }
                line.clear();
            }
        }
    }

    fn send_from(&self, from: IpAddr, to: SocketAddr, request: &[u8]) -> io::Result<usize> {
        let (v4, v6);
        let control = match from {
            IpAddr::V4(from) => {
                let unset = libc::in_addr { s_addr: 0 };
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: unset };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            IpAddr::V6(from) => {
                let source = libc::in6_addr { s6_addr: from.octets() };
                v6 = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let (fd, to) = (self.socket.as_raw_fd(), SockaddrStorage::from(to));
        let data = [IoSlice::new(request)];
        Ok(sendmsg(fd, &data, &[control], MsgFlags::empty(), Some(&to))?)
    }
}
