//! Probes: requests from real sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// Multipath TCP, which is used as TCP is.
    Mptcp,
    /// UDP socket with connect(); send() and recv().
    UdpConnected,
    /// UDP socket without connect(); sendto() and recvfrom().
    UdpUnconnected,
    /// Datagrams in fragments, the last one first, in both directions: large ones, see
    /// [`Probe::padding`]. Sent by a raw socket, so no hook for sockets sees the address dialled.
    UdpReversed,
    /// As [`Self::UdpReversed`], and the first fragment of the request is lost.
    UdpHeadless,
    /// One-to-one SCTP socket, which is used as a TCP one is (RFC 6458 section 4).
    Sctp,
}

/// Requests to send, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub(crate) to: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) count: u32,
    pub(crate) timeout: Duration,
    pub(crate) pause: Duration,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) ports: Option<u16>,
    pub(crate) padding: usize,
    pub(crate) same_socket: bool,
}

impl Probe {
    /// One request over `transport`.
    pub fn new(transport: Transport, to: impl Into<SocketAddr>) -> Self {
        Self {
            to: to.into(),
            transport,
            count: 1,
            timeout: Duration::from_secs(3),
            pause: Duration::ZERO,
            from: None,
            ports: None,
            padding: 0,
            same_socket: false,
        }
    }

    /// One TCP request.
    pub fn tcp(to: impl Into<SocketAddr>) -> Self {
        Self::new(Transport::Tcp, to)
    }

    /// One request from a connected UDP socket.
    pub fn udp(to: impl Into<SocketAddr>) -> Self {
        Self::new(Transport::UdpConnected, to)
    }

    /// One SCTP request.
    pub fn sctp(to: impl Into<SocketAddr>) -> Self {
        Self::new(Transport::Sctp, to)
    }

    /// One request from an unconnected UDP socket.
    pub fn udp_unconnected(to: impl Into<SocketAddr>) -> Self {
        Self::new(Transport::UdpUnconnected, to)
    }

    /// Whom it asks.
    pub const fn to(&self) -> SocketAddr {
        self.to
    }

    /// Number of requests, each from a socket of its own.
    #[must_use]
    pub fn count(mut self, requests: u32) -> Self {
        self.count = requests;
        self
    }

    /// All requests from one socket (TCP and SCTP: over one connection).
    #[must_use]
    pub fn same_socket(mut self) -> Self {
        self.same_socket = true;
        self
    }

    /// How long to wait for a connection and for an answer, each (default 3 seconds).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Pause between requests.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Bind the socket to an address and port (port 0: any) first.
    #[must_use]
    pub fn from(mut self, address: impl Into<SocketAddr>) -> Self {
        self.from = Some(address.into());
        self
    }

    /// Bind the sockets to ports that follow each other, instead of ones that the kernel draws at
    /// random: so no two probes ever use the same one.
    #[must_use]
    pub fn ports(mut self, first: u16) -> Self {
        self.ports = Some(first);
        self
    }

    /// The address and port to bind the socket of a request to, by the request's number.
    pub(crate) fn source(&self, number: u32) -> Option<SocketAddr> {
        let Some(first) = self.ports else { return self.from };
        let port = u32::from(first) + number;
        Some(unspecified(self.to.ip(), u16::try_from(port).unwrap_or(0)))
    }

    /// Over what it asks.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Number of requests.
    pub const fn requests(&self) -> u32 {
        self.count
    }

    /// Add so many bytes to the request and to the answer, and compare them.
    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// Use an IPv6 socket and the v4-mapped form of the IPv4 address dialled.
    #[must_use]
    pub fn mapped(mut self) -> Self {
        self.to = mapped(self.to);
        self
    }
}

/// A port on any address of a family.
pub(crate) fn unspecified(like: IpAddr, port: u16) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// The v4-mapped form of an IPv4 address and port; IPv6 stays as it is.
pub fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(v4) => SocketAddr::new(Ipv4Addr::to_ipv6_mapped(&v4).into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}
