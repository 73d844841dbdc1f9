//! Reads pages of plain HTTP servers (health and metrics of kube-proxy).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The body of a page.
///
/// # Errors
/// When the server does not answer with status 200.
pub(super) fn get(to: SocketAddr, path: &str) -> Result<String> {
    let timeout = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&to, timeout)
        .with_context(|| format!("connect to http://{to}"))?;
    stream.set_read_timeout(Some(timeout)).context("set a timeout")?;
    // HTTP/1.0: no chunks, and the end of the connection is the end of the body.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n").context("send a request")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("read http://{to}{path}"))?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("http://{to}{path} answered `{status}`: {}", body.trim());
    }
    Ok(body.to_owned())
}
