//! Sockets that the programs have given a backend, in every network namespace that can be entered.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    thread,
};

use kproxy_common::{
    abi::map,
    net::{Addr, Port, proto},
    service::service_port_id,
    socket::{Peer, SocketState},
};
use nix::sched::{CloneFlags, setns};
use zerocopy::FromBytes as _;

use super::{
    error::ReadError,
    pins::Pins,
    rows::{SocketRow, ToldBy},
};
use crate::{
    dataplane::kernel::{
        bpf::{self, Access, RawMap},
        diag::{Diag, Held},
    },
    model::{Family, Protocol},
    node::{namespaces, processes},
};

/// What was found, and why some of it was not.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Sorted by Service, frontend and own end.
    pub(crate) rows: Vec<SocketRow>,
    /// Network namespaces that were looked into.
    pub(crate) namespaces: usize,
    /// Why others could not be.
    pub(crate) error: Option<io::Error>,
}

impl Pins {
    /// Every socket with a backend that a program has given it; of UDP those that a process of `processes` has. TCP ones
    /// that only wait (TIME_WAIT) are no sockets to the kernel any more, and not among them.
    ///
    /// # Errors
    /// A map could not be read, or the own namespace not be looked into.
    pub(crate) fn sockets(&self, processes: &processes::Sockets) -> Result<Sockets, ReadError> {
        let names = self.names()?;
        let path = self.dirs().map(map::SOCKETS);
        let failed = ReadError::of_map::<io::Error>(map::SOCKETS);
        let opened = bpf::open_pin(&path, Access::Read).map_err(&failed)?;
        let map = RawMap::new(opened).map_err(&failed)?;
        // The thread ends in another network namespace than it began in.
        let looked = thread::scope(|scope| {
            scope.spawn(|| Look { map: &map, processes }.all()).join().unwrap_or_else(|_panic| {
                Err(io::Error::other("the thread that looks has panicked"))
            })
        });
        let mut sockets = looked.map_err(&failed)?;
        for row in &mut sockets.rows {
            row.service = names.get(&row.id).cloned();
        }
        sockets.rows.sort_by(|a, b| {
            (&a.service, a.frontend, a.local).cmp(&(&b.service, b.frontend, b.local))
        });
        Ok(sockets)
    }
}

/// What is asked.
struct Look<'a> {
    map: &'a RawMap,
    processes: &'a processes::Sockets,
}

impl Look<'_> {
    fn all(&self) -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        self.here(&mut sockets, namespaces::own()?)?;
        for namespace in namespaces::others() {
            if let Err(error) = self.into(&mut sockets, &namespace) {
                sockets.error.get_or_insert(error);
            }
        }
        Ok(sockets)
    }

    fn into(&self, sockets: &mut Sockets, namespace: &File) -> io::Result<()> {
        let inode = namespace.metadata()?.ino();
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        self.here(sockets, inode)
    }

    fn here(&self, sockets: &mut Sockets, namespace: u64) -> io::Result<()> {
        let diag = Diag::open()?;
        for family in Family::ALL {
            for protocol in [proto::TCP, proto::UDP] {
                for mut held in diag.held(family, protocol, self.map.as_fd())? {
                    if protocol == proto::UDP {
                        held.kept = self.kept(held.inode);
                    }
                    sockets.rows.extend(rows(&held, namespace));
                }
            }
        }
        sockets.namespaces += 1;
        Ok(())
    }

    /// What is kept in a socket of a process: the map's key is the socket's number in this one.
    fn kept(&self, inode: u32) -> Option<SocketState> {
        let socket = self.processes.open(inode)?;
        let value = self.map.get(&socket.as_raw_fd().to_ne_bytes()).ok()??;
        SocketState::read_from_bytes(&value).ok()
    }
}

/// A row for each backend that counts: of a connected socket the one that it is connected to, of another those that it
/// sends to.
fn rows(held: &Held, namespace: u64) -> Vec<SocketRow> {
    let Some(kept) = held.kept else { return Vec::new() };
    let (remote, port) = held.remote;
    let [connected, sent @ ..] = &kept.peers;
    let is_connected = port.get() != 0;
    let (peers, by) = if is_connected && connected.has_backend(&remote, port) {
        (std::slice::from_ref(connected), ToldBy::Connect)
    } else if is_connected {
        // Connected otherwise since.
        ([].as_slice(), ToldBy::Connect)
    } else {
        (sent.as_slice(), ToldBy::Send)
    };
    let counts = |peer: &&Peer| !peer.is_free() && !peer.is_asker();
    let address = |(ip, port): (Addr, Port)| SocketAddr::new(ip.into(), port.get());
    let row = |peer: &Peer| SocketRow {
        protocol: Protocol::from_number(held.protocol),
        state: state(held.protocol, held.state),
        told_by: by,
        local: address(held.local),
        frontend: address((peer.frontend, peer.frontend_port)),
        backend: address((peer.backend, peer.backend_port)),
        id: service_port_id(peer.service),
        service: None,
        namespace,
        cgroup: held.cgroup,
        user: held.user,
        inode: held.inode,
    };
    peers.iter().filter(counts).map(row).collect()
}

/// The state's name (net/ipv4/tcp_ipv4.c and include/net/tcp_states.h); UDP is connected or not.
fn state(protocol: u8, number: u8) -> &'static str {
    const NAMES: [&str; 13] = [
        "?",
        "established",
        "syn-sent",
        "syn-recv",
        "fin-wait-1",
        "fin-wait-2",
        "time-wait",
        "closed",
        "close-wait",
        "last-ack",
        "listen",
        "closing",
        "syn-recv",
    ];
    match (protocol, number) {
        (proto::UDP, 1) => "connected",
        (proto::UDP, _) => "unconnected",
        _ => NAMES.get(usize::from(number)).copied().unwrap_or("?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(frontend: &str, backend: &str) -> Peer {
        let parse = |text: &str| {
            let at: SocketAddr = text.parse().unwrap();
            (Addr::from(at.ip()), Port::new(at.port()))
        };
        let ((frontend, frontend_port), (backend, backend_port)) =
            (parse(frontend), parse(backend));
        Peer { frontend, frontend_port, backend, backend_port, service: 14, ..Peer::default() }
    }

    #[test]
    fn a_connected_socket_has_what_it_is_connected_to_and_another_what_it_sends_to() {
        let mut held = Held {
            protocol: proto::UDP,
            state: 7,
            local: (Addr::default(), Port::new(40_000)),
            remote: (Addr::default(), Port::new(0)),
            user: 0,
            inode: 1,
            cgroup: 2,
            kept: None,
        };
        let mut kept = SocketState::default();
        kept.peers[0] = peer("10.96.0.1:80", "10.244.1.2:8080");
        kept.peers[1] = peer("10.96.0.10:53", "10.244.1.3:53");
        kept.peers[2] = peer("10.96.0.10:53", "10.96.0.10:53");
        assert_eq!(rows(&held, 5), []);
        held.kept = Some(kept);
        let shown = |held: &Held| {
            let text = |row: SocketRow| format!("{} {} {}", row.frontend, row.backend, row.state);
            rows(held, 5).into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(shown(&held), ["10.96.0.10:53 10.244.1.3:53 unconnected"]);
        held.state = 1;
        held.remote = (kept.peers[0].backend, Port::new(8080));
        assert_eq!(shown(&held), ["10.96.0.1:80 10.244.1.2:8080 connected"]);
        assert_eq!(rows(&held, 5)[0].id, 7);
        held.remote.1 = Port::new(9090);
        assert_eq!(shown(&held), [""; 0]);
    }
}
