//! TCP, UDP, MPTCP and SCTP server for probes and loads: one thread for all sockets of a port.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent::connection::{Connection, Next};
use crate::agent::cpu::pin;
use crate::agent::fragments;
use crate::protocol::{Serve, Sockets};
use crate::traffic::line::{self, PING, PONG, REVERSED};

/// Connections that wait to be accepted, and half-open ones: as many as net.core.somaxconn lets.
const BACKLOG: i32 = 65_535;
/// Bytes of datagrams that wait to be read: a flood during some tenths of a second.
const RECEIVE_BYTES: usize = 16 << 20;
/// Token of the event that ends the thread.
const STOP: u64 = 0;

/// A running server.
pub(super) struct Server {
    stop: Arc<EventFd>,
    thread: JoinHandle<Result<()>>,
}

impl Server {
    /// Binds and starts to serve.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub(super) fn start(spec: &Serve) -> Result<Self> {
        let stop = Arc::new(EventFd::new().context("make an event descriptor")?);
        let mut reactor = Reactor {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll instance")?,
            sockets: HashMap::new(),
            next: STOP + 1,
            name: Arc::from(spec.name.as_str()),
        };
        reactor.watch(&*stop, STOP).context("watch the event descriptor")?;
        for ip in &spec.addresses {
            let at = SocketAddr::new(*ip, spec.port);
            let (stream, name) = match spec.sockets {
                Sockets::TcpAndUdp => (Protocol::TCP, "tcp"),
                Sockets::Mptcp => (Protocol::MPTCP, "mptcp"),
                Sockets::Sctp => (Protocol::SCTP, "sctp"),
            };
            let listener = bind(at, stream).with_context(|| format!("listen on {name} {at}"))?;
            reactor.add(Entry::Listener(listener.into()))?;
            if let Sockets::TcpAndUdp = spec.sockets {
                let udp = bind(at, Protocol::UDP).with_context(|| format!("bind udp {at}"))?;
                reactor.add(Entry::Udp { socket: udp.into(), local: at })?;
            }
        }
        let cpu = spec.cpu;
        let thread = thread::spawn(move || {
            pin(cpu)?;
            reactor.run()
        });
        Ok(Self { stop, thread })
    }

    /// Closes every socket of the server; returns when they are closed.
    pub(super) fn stop(self) -> Result<()> {
        self.stop.write(1).context("stop a server")?;
        self.join()
    }

    /// Waits for its end.
    pub(super) fn join(self) -> Result<()> {
        self.thread.join().map_err(|_panic| anyhow!("the server panicked"))?
    }
}

fn bind(at: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let kind = if protocol == Protocol::UDP { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier server on this port may linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    } else {
        // Fails without the rights for it: then floods are lost sooner.
        let _smaller = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES);
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

enum Entry {
    Listener(TcpListener),
    Udp { socket: UdpSocket, local: SocketAddr },
    Connection(Connection),
}

struct Reactor {
    epoll: Epoll,
    sockets: HashMap<u64, Entry>,
    next: u64,
    name: Arc<str>,
}

impl Reactor {
    fn watch(&self, fd: impl AsFd, token: u64) -> Result<()> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)).context("watch a socket")
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        let token = self.next;
        match &entry {
            Entry::Listener(listener) => self.watch(listener, token)?,
            Entry::Udp { socket, .. } => self.watch(socket, token)?,
            Entry::Connection(connection) => self.watch(connection.stream(), token)?,
        }
        self.next += 1;
        self.sockets.insert(token, entry);
        Ok(())
    }

    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(e) => return Err(e).context("wait for requests"),
            };
            for token in events[..count].iter().map(EpollEvent::data) {
                if token == STOP {
                    return Ok(());
                }
                self.serve(token, &mut buffer)?;
            }
        }
    }

    /// Does what one socket is ready for. Errors of clients end their connection only.
    fn serve(&mut self, token: u64, buffer: &mut [u8]) -> Result<()> {
        match self.sockets.get_mut(&token) {
            Some(Entry::Listener(listener)) => {
                if let Ok((stream, client)) = listener.accept()
                    && let Ok(connection) = Connection::new(stream, client, Arc::clone(&self.name))
                {
                    self.add(Entry::Connection(connection))?;
                }
            }
            Some(Entry::Udp { socket, local }) => {
                // An error here belongs to an earlier datagram's receiver; the next one is served.
                if let Ok((length, client)) = socket.recv_from(buffer) {
                    let datagram = &buffer[..length];
                    let answer = if datagram == PING {
                        Some(PONG.to_vec())
                    } else {
                        line::answer(datagram, &self.name, client, *local)
                    };
                    if let Some(answer) = answer {
                        let _receiver_gone = if datagram.starts_with(REVERSED.as_bytes()) {
                            fragments::send(*local, client, &answer)
                        } else {
                            socket.send_to(&answer, client).map(drop)
                        };
                    }
                }
            }
            Some(Entry::Connection(connection)) => match connection.step(buffer) {
                Ok(Next::Read) => self.interest(token, EpollFlags::EPOLLIN)?,
                Ok(Next::Write) => self.interest(token, EpollFlags::EPOLLOUT)?,
                Ok(Next::Same) => {}
                Ok(Next::Close) | Err(_) => {
                    self.sockets.remove(&token);
                }
            },
            // An event of a connection closed by an earlier event of the same batch.
            None => {}
        }
        Ok(())
    }

    fn interest(&self, token: u64, flags: EpollFlags) -> Result<()> {
        let Some(Entry::Connection(connection)) = self.sockets.get(&token) else { return Ok(()) };
        self.epoll
            .modify(connection.stream(), &mut EpollEvent::new(flags, token))
            .context("change what a socket waits for")
    }
}
