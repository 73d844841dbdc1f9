//! Forges packets of a connection.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use etherparse::{Ipv4Slice, TcpHeader, TcpSlice};
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent::client::{Client, verdict};
use crate::agent::raw;
use crate::traffic::{Forge, Forgery, Transport, Verdict};

/// How long a connection is idle before the packet comes: both ends have acknowledged all by then.
const IDLE: Duration = Duration::from_millis(200);
/// How far inside of the window a sequence number is; every receiver has a larger one.
const INSIDE: u32 = 1000;
/// How far outside of it: more than the buffers, and so the windows, of a lab's servers.
const OUTSIDE: u32 = 0x2000_0000;

/// Opens a connection, forges a packet, asks again.
///
/// # Errors
/// When there is no connection, or no packet of the server was seen.
pub(crate) fn run(forge: &Forge) -> Result<Verdict> {
    let mut seen = listen(forge.to)?;
    let mut client = Client::open(Transport::Tcp, forge.to, None, forge.timeout)
        .with_context(|| format!("connect to {}", forge.to))?;
    client.ask(0, 0, forge.timeout).context("get a first answer")?;
    let from = client.local().context("find the connection's own address")?;
    sleep(IDLE);
    let numbers = numbers(&mut seen, from, forge.to)?.context("see a packet of the server")?;
    let packet = raw::tcp(from, forge.to, header(forge.forgery, &numbers))?;
    raw::sender(forge.to.ip())?.send(&packet).context("send a forged packet")?;
    sleep(forge.wait);
    Ok(match client.ask(1, 0, forge.timeout) {
        Ok((answer, _)) => Verdict::Answered(answer),
        Err(error) => verdict(&error),
    })
}

/// A socket that gets a copy of every TCP packet that comes in.
fn listen(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Packets of other servers would only fill the queue.
    socket.connect(&SocketAddr::new(to.ip(), 0).into())?;
    Ok(socket)
}

/// What an idle connection's two ends send next.
struct Numbers {
    client: u32,
    server: u32,
}

/// By the last packet from the server.
fn numbers(seen: &mut Socket, to: SocketAddr, from: SocketAddr) -> io::Result<Option<Numbers>> {
    let mut last = None;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match seen.read(&mut buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(last),
            Err(e) => return Err(e),
        };
        let packet = &buffer[..length];
        // Raw sockets give IPv4 with its header, IPv6 without (raw(7), ipv6(7)).
        let tcp = if from.is_ipv4() {
            Ipv4Slice::from_slice(packet)
                .ok()
                .and_then(|ip| TcpSlice::from_slice(ip.payload().payload).ok())
        } else {
            TcpSlice::from_slice(packet).ok()
        };
        let Some(tcp) = tcp else { continue };
        if (tcp.source_port(), tcp.destination_port()) == (from.port(), to.port()) && tcp.ack() {
            let after = tcp.payload().len() as u32 + u32::from(tcp.syn()) + u32::from(tcp.fin());
            last = Some(Numbers {
                client: tcp.acknowledgment_number(),
                server: tcp.sequence_number().wrapping_add(after),
            });
        }
    }
}

fn header(forgery: Forgery, numbers: &Numbers) -> TcpHeader {
    let mut header = TcpHeader::new(0, 0, numbers.client.wrapping_add(OUTSIDE), u16::MAX);
    (header.ack, header.acknowledgment_number) = (true, numbers.server);
    match forgery {
        Forgery::RstOutside => header.rst = true,
        Forgery::RstExact => {
            header.rst = true;
            header.sequence_number = numbers.client;
        }
        Forgery::RstInside => {
            header.rst = true;
            header.sequence_number = numbers.client.wrapping_add(INSIDE);
        }
        Forgery::Fin => header.fin = true,
        Forgery::Syn => {
            header.syn = true;
            (header.ack, header.acknowledgment_number) = (false, 0);
        }
        Forgery::Ack => {
            header.acknowledgment_number = numbers.server.wrapping_add(OUTSIDE);
        }
    }
    header
}
