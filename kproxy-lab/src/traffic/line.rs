//! What clients and servers of a lab say to each other: a line, and a line of JSON for an answer.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a server answers to `who TOKEN PADDING`: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The server's name, such as `n1/a`.
    pub server: String,
    /// Address and port that the request came from, as the server saw it.
    pub client: SocketAddr,
    /// Address and port that the request arrived at.
    pub local: SocketAddr,
    /// The request's token: tells a late answer from the awaited one.
    pub(crate) token: u64,
    /// The request's padding.
    pub(crate) padding: String,
}

/// Request line of a probe.
pub(crate) fn who(token: u64, padding: usize) -> String {
    format!("who {token} {}\n", "x".repeat(padding))
}

/// The same for an answer that comes in fragments, the last one first.
pub(crate) fn who_reversed(token: u64, padding: usize) -> String {
    format!("{REVERSED}{}", who(token, padding))
}

/// What [`who_reversed`] begins with.
pub(crate) const REVERSED: &str = "reversed ";

/// The answer to a `who` line; `None` for anything else.
pub(crate) fn answer(
    line: &[u8],
    name: &str,
    client: SocketAddr,
    local: SocketAddr,
) -> Option<Vec<u8>> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
    let line = line.strip_prefix(REVERSED).unwrap_or(line);
    let (token, padding) = line.strip_prefix("who ")?.split_once(' ')?;
    let answer = Answer {
        server: name.to_owned(),
        client,
        local,
        token: token.parse().ok()?,
        padding: padding.to_owned(),
    };
    let mut bytes = serde_json::to_vec(&answer).ok()?;
    bytes.push(b'\n');
    Some(bytes)
}

/// Request of a load: answered by [`PONG`].
pub(crate) const PING: &[u8] = b"ping\n";
/// Like [`PING`]; then the server closes the connection.
pub(crate) const LAST: &[u8] = b"last\n";
/// Answer to [`PING`], [`LAST`] and a finished `put`.
pub(crate) const PONG: &[u8] = b"pong\n";
