//! Client sockets.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent::fragments;
use crate::traffic::line::{Answer, who, who_reversed};
use crate::traffic::{Transport, Verdict, unspecified};

/// An open client socket.
pub(super) enum Client {
    /// TCP, MPTCP or SCTP: the standard library's calls work on both.
    Stream(BufReader<TcpStream>),
    UdpConnected(UdpSocket),
    Udp {
        socket: UdpSocket,
        to: SocketAddr,
    },
    /// Answers come to the socket; requests leave by another one.
    Reversed {
        socket: UdpSocket,
        to: SocketAddr,
        /// Without the first fragment.
        headless: bool,
    },
}

impl Client {
    /// Opens a socket and, unless it is an unconnected one, connects it.
    pub(super) fn open(
        transport: Transport,
        to: SocketAddr,
        from: Option<SocketAddr>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let socket = socket(transport, to)?;
        if let Some(from) = from {
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        match transport {
            Transport::Tcp | Transport::Mptcp | Transport::Sctp => {
                if transport == Transport::Sctp {
                    report_icmp_errors(&socket);
                }
                socket.connect_timeout(&to.into(), timeout)?;
                if transport != Transport::Sctp {
                    socket.set_tcp_nodelay(true)?;
                }
                socket.set_read_timeout(Some(timeout))?;
                socket.set_write_timeout(Some(timeout))?;
                Ok(Self::Stream(BufReader::new(socket.into())))
            }
            Transport::UdpConnected => {
                socket.connect(&to.into())?;
                Ok(Self::UdpConnected(socket.into()))
            }
            Transport::UdpUnconnected => {
                report_icmp_errors(&socket);
                Ok(Self::Udp { socket: socket.into(), to })
            }
            Transport::UdpReversed | Transport::UdpHeadless => {
                if from.is_none() {
                    socket.bind(&unspecified(to.ip(), 0).into())?;
                }
                let headless = transport == Transport::UdpHeadless;
                Ok(Self::Reversed { socket: socket.into(), to, headless })
            }
        }
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Stream(stream) => stream.get_ref().local_addr(),
            Self::UdpConnected(socket)
            | Self::Udp { socket, .. }
            | Self::Reversed { socket, .. } => socket.local_addr(),
        }
        .ok()
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Stream(stream) => stream.get_ref().peer_addr().ok(),
            Self::UdpConnected(socket) => socket.peer_addr().ok(),
            Self::Udp { .. } | Self::Reversed { .. } => None,
        }
    }

    /// Asks who is there: the answer and, for UDP, where recvfrom() says that it came from.
    pub(super) fn ask(
        &mut self,
        token: u64,
        padding: usize,
        timeout: Duration,
    ) -> io::Result<(Answer, Option<SocketAddr>)> {
        let request = who(token, padding);
        let (answer, source) = match self {
            Self::Stream(stream) => {
                stream.get_mut().write_all(request.as_bytes())?;
                (read_line(stream, token)?, None)
            }
            Self::UdpConnected(socket) => {
                socket.send(request.as_bytes())?;
                let (answer, source) = receive(socket, token, timeout)?;
                (answer, Some(source))
            }
            Self::Udp { socket, to } => {
                socket.send_to(request.as_bytes(), *to)?;
                let (answer, source) = receive(socket, token, timeout)?;
                (answer, Some(source))
            }
            Self::Reversed { socket, to, headless } => {
                let (from, request) =
                    (fragments::source(socket, *to)?, who_reversed(token, padding));
                let send = if *headless { fragments::send_headless } else { fragments::send };
                send(from, *to, request.as_bytes())?;
                let (answer, source) = receive(socket, token, timeout)?;
                (answer, Some(source))
            }
        };
        if answer.padding.len() != padding {
            let got = answer.padding.len();
            return Err(io::Error::other(format!("{got} bytes of padding for {padding}")));
        }
        Ok((answer, source))
    }
}

/// A socket of the family of an address.
pub(super) fn socket(transport: Transport, like: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Mptcp => (Type::STREAM, Protocol::MPTCP),
        Transport::Sctp => (Type::STREAM, Protocol::SCTP),
        Transport::UdpConnected
        | Transport::UdpUnconnected
        | Transport::UdpReversed
        | Transport::UdpHeadless => (Type::DGRAM, Protocol::UDP),
    };
    Socket::new(Domain::for_address(like), kind, Some(protocol))
}

/// Without IP_RECVERR an unconnected UDP socket and an SCTP one never hear of an ICMP error, and a
/// refusal would look like silence.
fn report_icmp_errors(socket: &Socket) {
    // Each option fits one family; a v4-mapped socket takes both.
    let _other_family = setsockopt(socket, sockopt::Ipv4RecvErr, &true);
    let _other_family = setsockopt(socket, sockopt::Ipv6RecvErr, &true);
}

fn read_line(stream: &mut BufReader<TcpStream>, token: u64) -> io::Result<Answer> {
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let answer: Answer = serde_json::from_slice(&line)?;
        if answer.token == token {
            return Ok(answer);
        }
    }
}

fn receive(socket: &UdpSocket, token: u64, timeout: Duration) -> io::Result<(Answer, SocketAddr)> {
    let deadline = Instant::now() + timeout;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let (length, source) = socket.recv_from(&mut buffer)?;
        // Late answers to earlier requests are passed over.
        if let Ok(answer) = serde_json::from_slice::<Answer>(&buffer[..length])
            && answer.token == token
        {
            return Ok((answer, source));
        }
    }
}

/// What an error means for the one who asked.
pub(super) fn verdict(error: &io::Error) -> Verdict {
    match error.kind() {
        ErrorKind::ConnectionRefused => Verdict::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Verdict::Timeout,
        _ => Verdict::Failed(describe(error)),
    }
}

/// The name of the errno, or the message of an error that has none.
pub(super) fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
