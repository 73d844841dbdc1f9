//! sock_diag(7): lists the sockets of a network namespace, with what programs keep in them, and closes them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use kproxy_common::{
    net::{Addr, Port, proto},
    socket::SocketState,
};
use rtnetlink::{
    packet_core::{DefaultNla, NlasIterator},
    sys::{Socket, protocols::NETLINK_SOCK_DIAG},
};
use zerocopy::FromBytes as _;

use crate::model::Family;
use crate::node::netlink;

/// Messages: uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Connected, as sockets of every protocol call it (include/net/tcp_states.h).
const ESTABLISHED: u32 = 1 << 1;

/// Length of `struct inet_diag_sockid`: ports, addresses, device, cookie.
const ID_LEN: usize = 48;
/// Length of `struct inet_diag_msg`, and where the state, the user and the inode number are.
const MESSAGE_LEN: usize = 72;
const STATE: usize = 1;
const USER: usize = 64;
const INODE: usize = 68;
/// Attributes: uapi/linux/inet_diag.h and sock_diag.h, in the order in which they are met.
const ASK_STORAGES: u16 = 2;
const ASK_MAP: u16 = 1;
const STORAGES: u16 = 20;
const CGROUP: u16 = 21;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;

/// A connected UDP socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Connected {
    family: Family,
    /// `struct inet_diag_sockid` as the kernel gave it, cookie included: no other socket is meant.
    id: [u8; ID_LEN],
    /// Its own end.
    pub(crate) local: (Addr, Port),
    /// Where its datagrams go.
    pub(crate) remote: (Addr, Port),
}

/// A socket, and what the programs keep in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    /// Its protocol's number.
    pub(crate) protocol: u8,
    /// Number of its state, as TCP counts them (include/net/tcp_states.h).
    pub(crate) state: u8,
    /// Its own end.
    pub(crate) local: (Addr, Port),
    /// Its other end; unspecified: it is not connected.
    pub(crate) remote: (Addr, Port),
    /// User that it belongs to.
    pub(crate) user: u32,
    /// Its inode number, by which processes have it; 0: none has.
    pub(crate) inode: u32,
    /// Kernel id of its cgroup; 0: the kernel does not tell.
    pub(crate) cgroup: u64,
    /// What is kept in it; `None`: nothing, or the kernel does not tell.
    pub(crate) kept: Option<SocketState>,
}

/// A sock_diag socket in the network namespace of the thread that made it.
pub(crate) struct Diag(Socket);

impl Diag {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::new(NETLINK_SOCK_DIAG).map(Self)
    }

    /// Connected UDP sockets of a family.
    pub(crate) fn connected_udp(&self, family: Family) -> io::Result<Vec<Connected>> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        self.0.send(&request(SOCK_DIAG_BY_FAMILY, flags, family, ESTABLISHED, &[0; ID_LEN]), 0)?;
        let mut sockets = Vec::new();
        netlink::receive(&self.0, |message| sockets.extend(parse(family, message.payload())))?;
        Ok(sockets)
    }

    /// Sockets of a family and protocol, with what is kept in them in this map. Of protocols without connections the
    /// kernel does not tell (inet_sk_diag_fill(), net/ipv4/inet_diag.c).
    ///
    /// # Errors
    /// Those of the kernel; `EPERM`: it takes CAP_BPF.
    pub(crate) fn held(
        &self,
        family: Family,
        protocol: u8,
        map: BorrowedFd<'_>,
    ) -> io::Result<Vec<Held>> {
        let map = DefaultNla::new(ASK_MAP, map.as_raw_fd().to_ne_bytes().to_vec());
        let asked = DefaultNla::new(ASK_STORAGES, netlink::emitted(&[map]));
        let mut body = query(family, protocol, u32::MAX, &[0; ID_LEN]);
        body.extend(netlink::emitted(&[asked]));
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        self.0.send(&netlink::message(SOCK_DIAG_BY_FAMILY, flags, &body), 0)?;
        let mut sockets = Vec::new();
        netlink::receive(&self.0, |message| {
            sockets.extend(parse_held(family, protocol, message.payload()));
        })?;
        Ok(sockets)
    }

    /// Closes a socket: whoever uses it gets ECONNABORTED. One that is gone already is no error.
    pub(crate) fn destroy(&self, socket: &Connected) -> io::Result<()> {
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
    netlink::message(kind, flags, &query(family, proto::UDP, states, id))
}

/// A `struct inet_diag_req_v2`.
fn query(family: Family, protocol: u8, states: u32, id: &[u8; ID_LEN]) -> Vec<u8> {
    let mut body = vec![address_family(family), protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

/// The value of the first attribute of this kind.
fn value_of(attributes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(attributes).flatten();
    attributes
        .find(|attribute| attribute.kind() == wanted)
        .map(|attribute| attribute.value().to_vec())
}

/// A `struct inet_diag_msg` and the attributes behind it.
fn parse_held(family: Family, protocol: u8, payload: &[u8]) -> Option<Held> {
    let attributes = payload.get(MESSAGE_LEN..)?;
    let storages = value_of(attributes, STORAGES);
    let storage = storages.and_then(|storages| value_of(&storages, STORAGE));
    let value = storage.and_then(|storage| value_of(&storage, STORAGE_VALUE));
    let kept = value
        .and_then(|value| SocketState::read_from_prefix(&value).ok().map(|(kept, _rest)| kept));
    let number = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
    let cgroup = value_of(attributes, CGROUP).and_then(|id| id.first_chunk().copied());
    let Connected { local, remote, .. } = parse(family, payload)?;
    Some(Held {
        protocol,
        state: *payload.get(STATE)?,
        local,
        remote,
        user: number(USER)?,
        inode: number(INODE)?,
        cgroup: cgroup.map_or(0, u64::from_ne_bytes),
        kept,
    })
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
