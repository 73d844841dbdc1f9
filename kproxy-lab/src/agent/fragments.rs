//! Datagrams in fragments that come in the wrong order, by a raw socket: the kernel of the sender would
//! never do that, networks do.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use etherparse::{IpFragOffset, Ipv4Header};

use crate::agent::raw;
use crate::traffic::unspecified;

/// Bytes of a fragment; fit every network of the lab.
const BYTES: usize = 1000;
/// IPv6 fragment header (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;

/// Sends a datagram, its last fragment first.
pub(super) fn send(from: SocketAddr, to: SocketAddr, data: &[u8]) -> io::Result<()> {
    fragments(from, to, data)?.iter().rev().try_for_each(|fragment| send_raw(to, fragment))
}

/// The same without the first fragment.
pub(super) fn send_headless(from: SocketAddr, to: SocketAddr, data: &[u8]) -> io::Result<()> {
    let fragments = fragments(from, to, data)?;
    fragments[1..].iter().rev().try_for_each(|fragment| send_raw(to, fragment))
}

/// The address by which `to` is reached, with the port of `socket`.
pub(super) fn source(socket: &UdpSocket, to: SocketAddr) -> io::Result<SocketAddr> {
    let route = UdpSocket::bind(unspecified(to.ip(), 0))?;
    route.connect(to)?;
    Ok(SocketAddr::new(route.local_addr()?.ip(), socket.local_addr()?.port()))
}

fn send_raw(to: SocketAddr, packet: &[u8]) -> io::Result<()> {
    raw::sender(to.ip())?.send(packet).map(drop)
}

/// Identifications differ, also from those of an earlier process.
fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let first = now.as_micros() as u32 | 1;
    let _begun = NEXT.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The fragments in order, from the IP header on.
fn fragments(from: SocketAddr, to: SocketAddr, data: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let packet = raw::udp(from, to, data)?;
    let id = next_id();
    let (header, payload) = packet.split_at(if to.is_ipv4() { 20 } else { 40 });
    let last = payload.len().div_ceil(BYTES) - 1;
    let cut = |(i, chunk): (usize, &[u8])| {
        let (units, more) = ((i * BYTES / 8) as u16, i < last);
        let mut fragment = header.to_vec();
        if to.is_ipv4() {
            let (mut ip, _) = Ipv4Header::from_slice(header).map_err(io::Error::other)?;
            // 0 would be replaced by the kernel.
            ip.identification = (id as u16).max(1);
            (ip.dont_fragment, ip.more_fragments) = (false, more);
            ip.fragment_offset = IpFragOffset::try_new(units).map_err(io::Error::other)?;
            ip.total_len = (header.len() + chunk.len()) as u16;
            ip.header_checksum = ip.calc_header_checksum();
            fragment = ip.to_bytes().to_vec();
        } else {
            let next = std::mem::replace(&mut fragment[6], FRAGMENT);
            fragment[4..6].copy_from_slice(&(8 + chunk.len() as u16).to_be_bytes());
            fragment.extend([next, 0]);
            fragment.extend((units << 3 | u16::from(more)).to_be_bytes());
            fragment.extend(id.to_be_bytes());
        }
        fragment.extend(chunk);
        Ok(fragment)
    };
    payload.chunks(BYTES).enumerate().map(cut).collect()
}
