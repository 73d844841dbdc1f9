//! Packets that no socket of this place would send: made here, sent by a raw socket.

use std::io;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use socket2::{Domain, Protocol, Socket, Type};

/// IPPROTO_RAW: the sender makes the IP header (raw(7)).
const RAW: i32 = 255;
/// Hops that a packet may take, as the kernel sets it.
const HOPS: u8 = 64;

/// A socket for whole packets to one address.
pub(super) fn sender(to: IpAddr) -> io::Result<Socket> {
    // A port would be taken for a protocol.
    let to = SocketAddr::new(to, 0);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(RAW)))?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// A TCP packet without data, from the IP header on.
pub(super) fn tcp(from: SocketAddr, to: SocketAddr, mut header: TcpHeader) -> io::Result<Vec<u8>> {
    (header.source_port, header.destination_port) = (from.port(), to.port());
    let mut packet = Vec::new();
    ip(from, to)?.tcp_header(header).write(&mut packet, &[]).map_err(io::Error::other)?;
    Ok(packet)
}

/// A UDP packet, from the IP header on.
pub(super) fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut packet = Vec::new();
    let step = ip(from, to)?.udp(from.port(), to.port());
    step.write(&mut packet, data).map_err(io::Error::other)?;
    Ok(packet)
}

fn ip(from: SocketAddr, to: SocketAddr) -> io::Result<PacketBuilderStep<IpHeaders>> {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Ok(PacketBuilder::ipv4(from.octets(), to.octets(), HOPS))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Ok(PacketBuilder::ipv6(from.octets(), to.octets(), HOPS))
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
