//! Asks plain HTTP servers (health checks and metrics of proxies).

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::agent::client::{describe, verdict};
use crate::traffic::{HttpAnswer, HttpOutcome, Verdict};

/// Sends one request; whatever comes of it.
pub(super) fn ask(to: SocketAddr, method: &str, path: &str, timeout: Duration) -> HttpOutcome {
    match exchange(to, method, path, timeout) {
        Ok(text) => HttpAnswer::parse(&text).map_or_else(
            || HttpOutcome::Failed(format!("no HTTP answer: {text}")),
            HttpOutcome::Answered,
        ),
        Err(error) => match verdict(&error) {
            Verdict::Refused => HttpOutcome::Refused,
            Verdict::Timeout => HttpOutcome::Timeout,
            _ => HttpOutcome::Failed(describe(&error)),
        },
    }
}

fn exchange(to: SocketAddr, method: &str, path: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    // HTTP/1.0: no chunks, and the end of the connection is the end of the body.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: 0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
