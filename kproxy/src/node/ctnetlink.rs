//! Netfilter's table of connections, through ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h): what
//! kube-proxy has opened is read, and what kproxy translates is entered before kube-proxy takes over.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use kproxy_common::{
    flow::{FlowState, flow_state},
    net::proto,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status,
        TCPFlags, Tuple,
    },
};
use rtnetlink::{
    packet_core::{
        DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
        NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
    },
    sys::{Socket, protocols::NETLINK_NETFILTER},
};

use super::netlink;

/// Attributes that the crate has no name for.
const CTA_NAT_SRC: u16 = 6 | NLA_F_NESTED;
const CTA_NAT_DST: u16 = 13 | NLA_F_NESTED;
const CTA_NAT_PROTO: u16 = 3 | NLA_F_NESTED;
const CTA_ZONE: u16 = 18;
const NLA_F_NESTED: u16 = 1 << 15;

/// TCP's states by their numbers there (enum tcp_conntrack in nf_conntrack_tcp.h).
const TCP_STATES: [u8; 10] = [
    flow_state::OPENING,
    flow_state::OPENING,
    flow_state::RECEIVED,
    flow_state::ESTABLISHED,
    flow_state::FIN_WAIT,
    flow_state::CLOSE_WAIT,
    flow_state::LAST_ACK,
    flow_state::TIME_WAIT,
    flow_state::RESET,
    flow_state::CROSSED,
];

/// Flags and their mask: segments beyond the window that was seen are taken (IP_CT_TCP_FLAG_BE_LIBERAL). Of a
/// connection that is entered half way none was.
const BE_LIBERAL: [u8; 2] = [8, 8];

/// A connection whose destination is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tracked {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Who opened it.
    pub(crate) client: SocketAddr,
    /// What it dialled.
    pub(crate) frontend: SocketAddr,
    /// Where it leads.
    pub(crate) backend: SocketAddr,
    /// Whom the backend sees.
    pub(crate) source: SocketAddr,
    /// How far it is.
    pub(crate) state: FlowState,
    /// Seconds without a packet until it is forgotten.
    pub(crate) left: u32,
}

/// A socket to the table of this network namespace.
pub(crate) struct Conntrack(Socket);

impl Conntrack {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel has no netfilter.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        Ok(Self(socket))
    }

    /// Every connection whose destination is translated and that is not over.
    ///
    /// # Errors
    /// No right to read the table, or the kernel has none.
    pub(crate) fn translated(&self) -> io::Result<Vec<Tracked>> {
        // Kernels since 5.15 filter by it, others send all.
        let wanted = vec![ConntrackAttribute::CtaStatus(Status::DstNat)];
        let mut found = Vec::new();
        let unspecified = NetfilterProtoFamily::Unspec;
        self.send(unspecified, NLM_F_DUMP, ConntrackMessage::Get(wanted))?;
        self.receive(|attributes| found.extend(tracked(&attributes)))?;
        Ok(found)
    }

    /// Enters a connection as if netfilter had translated it. `false`: an entry of it, or of
    /// another connection with its answers, is there.
    ///
    /// # Errors
    /// No right to, the table is full, or the kernel translates no addresses.
    pub(crate) fn enter(&self, connection: &Tracked) -> io::Result<bool> {
        let Tracked { client, frontend, backend, source, left, .. } = connection;
        let mut attributes = vec![
            ConntrackAttribute::CtaTupleOrig(tuple(connection, client, frontend)),
            // What the translations below begin with.
            ConntrackAttribute::CtaTupleReply(tuple(connection, frontend, client)),
            ConntrackAttribute::CtaStatus(Status::Confirmed | Status::SeenReply | Status::Assured),
            ConntrackAttribute::CtaTimeout(*left),
            ConntrackAttribute::Other(nat(CTA_NAT_SRC, source)),
            ConntrackAttribute::Other(nat(CTA_NAT_DST, backend)),
        ];
        if connection.protocol == proto::TCP {
            let number = connection.state.number();
            let state = TCP_STATES.iter().rposition(|state| *state == number).unwrap_or_default();
            let liberal = TCPFlags::parse(&BE_LIBERAL).map_err(io::Error::other)?;
            let tcp = vec![
                ProtoInfoTCP::State(state as u8),
                ProtoInfoTCP::OriginalFlags(liberal.clone()),
                ProtoInfoTCP::ReplyFlags(liberal),
            ];
            attributes.push(ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(tcp)]));
        }
        let entered =
            self.ask(connection, NLM_F_CREATE | NLM_F_EXCL, ConntrackMessage::New(attributes));
        match entered {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Has an entry last for so many seconds from now on.
    ///
    /// # Errors
    /// There is none, or no right to.
    pub(crate) fn keep(&self, connection: &Tracked, seconds: u32) -> io::Result<()> {
        let timeout = ConntrackAttribute::CtaTimeout(seconds);
        self.ask(connection, 0, ConntrackMessage::New(vec![original(connection), timeout]))
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// There is none, or no right to.
    pub(crate) fn remove(&self, connection: &Tracked) -> io::Result<()> {
        self.ask(connection, 0, ConntrackMessage::Delete(vec![original(connection)]))
    }

    fn ask(&self, about: &Tracked, flags: u16, message: ConntrackMessage) -> io::Result<()> {
        let family = match about.client.ip() {
            IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
            IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
        };
        self.send(family, flags | NLM_F_ACK, message)?;
        self.receive(|_| ())
    }

    fn send(
        &self,
        family: NetfilterProtoFamily,
        flags: u16,
        message: ConntrackMessage,
    ) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    /// Hands each entry of the answer on, until its end.
    fn receive(&self, mut each: impl FnMut(Vec<ConntrackAttribute>)) -> io::Result<()> {
        netlink::receive(&self.0, |message| {
            // One that cannot be read is none of those that are looked for.
            each(attributes(message.into_inner()).unwrap_or_default());
        })
    }
}

/// What a message says of an entry, if it is about one.
fn attributes(message: &[u8]) -> Option<Vec<ConntrackAttribute>> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(message).ok()?;
    let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
    match message.inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => Some(attributes),
        _ => None,
    }
}

/// A connection of the default zone whose destination is translated and that is not over.
fn tracked(attributes: &[ConntrackAttribute]) -> Option<Tracked> {
    let (mut there, mut back, mut status, mut tcp) = (None, None, Status::empty(), None);
    let mut left = 0;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => there = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => back = ends(tuple),
            ConntrackAttribute::CtaStatus(bits) => status = *bits,
            ConntrackAttribute::CtaTimeout(seconds) => left = *seconds,
            ConntrackAttribute::CtaProtoInfo(infos) => tcp = infos.iter().find_map(tcp_state),
            ConntrackAttribute::Other(other) if other.kind() == CTA_ZONE => return None,
            _ => {}
        }
    }
    let ((protocol, client, frontend), (_, backend, source)) = (there?, back?);
    let state = match tcp {
        Some(state) => state,
        None if protocol != proto::UDP => flow_state::ESTABLISHED,
        None if status.contains(Status::Assured) => flow_state::STREAM,
        None if status.contains(Status::SeenReply) => flow_state::REPLIED,
        None => flow_state::UNREPLIED,
    };
    let is_over = matches!(state, flow_state::TIME_WAIT | flow_state::RESET);
    let state = FlowState::from_number(state)?;
    let counts = status.contains(Status::DstNat) && !is_over;
    counts.then_some(Tracked { protocol, client, frontend, backend, source, state, left })
}

fn tcp_state(info: &ProtoInfo) -> Option<u8> {
    let ProtoInfo::TCP(all) = info else { return None };
    let number = all.iter().find_map(|info| match info {
        ProtoInfoTCP::State(number) => Some(*number),
        _ => None,
    });
    TCP_STATES.get(usize::from(number?)).copied()
}

/// Protocol, source and destination; `None` for protocols without ports.
fn ends(tuple: &[Tuple]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (mut from, mut to, mut protocol) = ((None, None), (None, None), None);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(ip) => from.0 = Some(*ip),
                        IPTuple::DestinationAddress(ip) => to.0 = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => from.1 = Some(*port),
                        ProtoTuple::DestinationPort(port) => to.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let socket = |(ip, port): (Option<IpAddr>, Option<u16>)| Some(SocketAddr::new(ip?, port?));
    Some((protocol?, socket(from)?, socket(to)?))
}

/// What the client's packets bear: the name of an entry.
fn original(connection: &Tracked) -> ConntrackAttribute {
    let Tracked { client, frontend, .. } = connection;
    ConntrackAttribute::CtaTupleOrig(tuple(connection, client, frontend))
}

fn tuple(connection: &Tracked, from: &SocketAddr, to: &SocketAddr) -> Vec<Tuple> {
    vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(from.ip()), IPTuple::DestinationAddress(to.ip())]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(connection.protocol.into()),
            ProtoTuple::SourcePort(from.port()),
            ProtoTuple::DestinationPort(to.port()),
        ]),
    ]
}

/// A translation to exactly this address and port.
fn nat(kind: u16, to: &SocketAddr) -> DefaultNla {
    let (least, most, address) = match to.ip() {
        IpAddr::V4(ip) => (1, 2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (4, 5, ip.octets().to_vec()),
    };
    let port = to.port().to_be_bytes().to_vec();
    let ports = [DefaultNla::new(1, port.clone()), DefaultNla::new(2, port)];
    nested(
        kind,
        &[
            DefaultNla::new(least, address.clone()),
            DefaultNla::new(most, address),
            nested(CTA_NAT_PROTO, &ports),
        ],
    )
}

fn nested(kind: u16, parts: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; parts.buffer_len()];
    parts.emit(&mut bytes);
    DefaultNla::new(kind, bytes)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn connection(protocol: u8, state: u8, addresses: [&str; 4]) -> Tracked {
        let [client, frontend, backend, source] = addresses.map(|text| text.parse().unwrap());
        let state = FlowState::from_number(state).unwrap();
        Tracked { protocol, client, frontend, backend, source, state, left: 60 }
    }

    /// Needs root.
    #[test]
    fn what_is_entered_is_found_until_it_is_removed() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let conntrack = Conntrack::open().unwrap();
            assert_eq!(conntrack.translated().unwrap(), []);
            let v4 = ["203.0.113.9:40000", "192.0.2.1:30080", "10.244.2.5:8080", "192.0.2.1:20000"];
            let v6 = [
                "[2001:db8:9::9]:40000",
                "[2001:db8::1]:30080",
                "[fd00:10:244:2::5]:8080",
                "[2001:db8::1]:20000",
            ];
            let mut all = vec![
                connection(proto::TCP, flow_state::ESTABLISHED, v4),
                connection(proto::TCP, flow_state::CLOSE_WAIT, v6),
                connection(proto::UDP, flow_state::STREAM, v4),
                connection(proto::UDP, flow_state::STREAM, v6),
                connection(proto::SCTP, flow_state::ESTABLISHED, v4),
            ];
            // The client is seen as it is.
            let near = [v4[0], "192.0.2.1:30081", "10.244.1.5:8080", v4[0]];
            all.push(connection(proto::TCP, flow_state::ESTABLISHED, near));
            let over =
                connection(proto::TCP, flow_state::TIME_WAIT, [v4[0], near[1], v4[2], v4[3]]);
            for tracked in &all {
                assert!(conntrack.enter(tracked).unwrap(), "{tracked:?}");
                assert!(!conntrack.enter(tracked).unwrap(), "{tracked:?}");
            }
            assert!(!conntrack.enter(&over).unwrap(), "its port is another's");
            let found = conntrack.translated().unwrap();
            assert_eq!(found.len(), all.len(), "{found:?}");
            for tracked in &all {
                // A second may have passed.
                let is_it = |other: &&Tracked| Tracked { left: 60, ..**other } == *tracked;
                assert!(found.iter().any(|other| is_it(&other) && other.left > 50), "{found:?}");
            }
            for tracked in &all {
                conntrack.keep(tracked, 120).unwrap();
                conntrack.remove(tracked).unwrap();
                assert!(conntrack.remove(tracked).is_err());
            }
            assert!(conntrack.enter(&over).unwrap());
            assert_eq!(conntrack.translated().unwrap(), [], "what is over is left out");
        };
        thread::spawn(test).join().unwrap();
    }
}
