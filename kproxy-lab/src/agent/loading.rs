//! Runs loads. The loop of each kind of work holds nothing but its system calls.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::agent::cpu::pin;
use crate::traffic::line::{LAST, PING, PONG};
use crate::traffic::{BULK_BYTES, Load, LoadReport, Work};

/// An answer that does not come in this time ends the load.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a load to its end.
///
/// # Errors
/// The first failed operation.
pub(crate) fn run(load: &Load) -> Result<LoadReport> {
    pin(load.cpu)?;
    let to = load.to;
    let result = match load.work {
        Work::Connect => repeat(load, || connect(to)),
        Work::PingTcp => tcp(to).and_then(|mut stream| repeat(load, || ping_tcp(&mut stream))),
        Work::PingUdp => udp(to).and_then(|socket| {
            socket.connect(to)?;
            repeat(load, || {
                socket.send(PING)?;
                expect_pong(socket.recv(&mut [0; 64])?)
            })
        }),
        Work::PingUdpUnconnected => udp(to).and_then(|socket| {
            repeat(load, || {
                socket.send_to(PING, to)?;
                expect_pong(socket.recv_from(&mut [0; 64])?.0)
            })
        }),
        Work::BulkDown => {
            let mut buffer = vec![0; 256 << 10];
            tcp(to).and_then(|mut stream| repeat(load, || bulk_down(&mut stream, &mut buffer)))
        }
        Work::BulkUp => {
            let chunk = vec![0; 256 << 10];
            tcp(to).and_then(|mut stream| repeat(load, || bulk_up(&mut stream, &chunk)))
        }
    };
    result.with_context(|| format!("{:?} to {to}", load.work))
}

fn repeat(load: &Load, mut operation: impl FnMut() -> io::Result<()>) -> io::Result<LoadReport> {
    let start = Instant::now();
    let mut operations = 0;
    loop {
        operation()?;
        operations += 1;
        // clock_gettime() costs some 20 ns: nothing beside a system call.
        let elapsed = start.elapsed();
        if operations >= load.operations || elapsed >= load.duration {
            let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            return Ok(LoadReport { operations, nanoseconds });
        }
    }
}

fn tcp(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0u8; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

/// The server closes first and keeps the TIME_WAIT socket, so the client never runs out of ports.
fn connect(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(LAST)?;
    let mut answer = [0; 64];
    expect_pong(stream.read(&mut answer)?)?;
    match stream.read(&mut answer)? {
        0 => Ok(()),
        _ => Err(io::Error::other("the server sent more than its answer")),
    }
}

fn ping_tcp(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(PING)?;
    expect_pong(stream.read(&mut [0; 64])?)
}

fn bulk_down(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(format!("get {BULK_BYTES}\n").as_bytes())?;
    let mut left = BULK_BYTES;
    while left > 0 {
        match stream.read(buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => left = left.saturating_sub(length as u64),
        }
    }
    Ok(())
}

fn bulk_up(stream: &mut TcpStream, chunk: &[u8]) -> io::Result<()> {
    stream.write_all(format!("put {BULK_BYTES}\n").as_bytes())?;
    for _chunk in 0..BULK_BYTES / chunk.len() as u64 {
        stream.write_all(chunk)?;
    }
    expect_pong(stream.read(&mut [0; 64])?)
}

fn expect_pong(length: usize) -> io::Result<()> {
    if length == PONG.len() {
        Ok(())
    } else {
        Err(io::Error::other(format!("an answer of {length} bytes, not {}", PONG.len())))
    }
}
