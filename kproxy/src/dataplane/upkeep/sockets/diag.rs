//! sock_diag(7): lists connected UDP sockets of a network namespace, and closes them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kproxy_common::net::{Addr, Port, proto};
use rtnetlink::sys::{Socket, protocols::NETLINK_SOCK_DIAG};

use crate::model::Family;
use crate::node::netlink;

/// Messages: uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Connected, as sockets of every protocol call it (include/net/tcp_states.h).
const ESTABLISHED: u32 = 1 << 1;

/// Length of `struct inet_diag_sockid`: ports, addresses, device, cookie.
const ID_LEN: usize = 48;

/// A connected UDP socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Connected {
    family: Family,
    /// `struct inet_diag_sockid` as the kernel gave it, cookie included: no other socket is meant.
    id: [u8; ID_LEN],
    /// Its own end.
    pub(super) local: (Addr, Port),
    /// Where its datagrams go.
    pub(super) remote: (Addr, Port),
}

/// A sock_diag socket in the network namespace of the thread that made it.
pub(super) struct Diag(Socket);

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        Socket::new(NETLINK_SOCK_DIAG).map(Self)
    }

    /// Connected UDP sockets of a family.
    pub(super) fn connected_udp(&self, family: Family) -> io::Result<Vec<Connected>> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        self.0.send(&request(SOCK_DIAG_BY_FAMILY, flags, family, ESTABLISHED, &[0; ID_LEN]), 0)?;
        let mut sockets = Vec::new();
        netlink::receive(&self.0, |message| sockets.extend(parse(family, message.payload())))?;
        Ok(sockets)
    }

    /// Closes a socket: whoever uses it gets ECONNABORTED. One that is gone already is no error.
    pub(super) fn destroy(&self, socket: &Connected) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.0.send(&request(SOCK_DESTROY, flags, socket.family, u32::MAX, &socket.id), 0)?;
        match netlink::receive(&self.0, |_| {}) {
            // Closed or connected anew meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {
                Ok(())
            }
            result => result,
        }
    }
}

/// A netlink header and a `struct inet_diag_req_v2`.
fn request(kind: u16, flags: i32, family: Family, states: u32, id: &[u8; ID_LEN]) -> Vec<u8> {
    let mut body = vec![address_family(family), proto::UDP, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    netlink::message(kind, flags, &body)
}

const fn address_family(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// A `struct inet_diag_msg`, whose id follows four bytes.
fn parse(family: Family, payload: &[u8]) -> Option<Connected> {
    let id: [u8; ID_LEN] = *payload.get(4..)?.first_chunk()?;
    let port = |at: usize| Port(u16::from_ne_bytes([id[at], id[at + 1]]));
    let addr = |at: usize| {
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(*id.get(at..)?.first_chunk::<4>()?)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(*id.get(at..)?.first_chunk::<16>()?)),
        };
        Some(Addr::from(ip))
    };
    let (local, remote) = ((addr(4)?, port(0)), (addr(20)?, port(2)));
    Some(Connected { family, id, local, remote })
}
