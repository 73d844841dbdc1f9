//! One TCP or SCTP connection of a server.
//!
//! Lines that it understands: `who TOKEN PADDING` (who are you, whom do you see), `ping`, `last`
//! (ping, then the server closes first, so that the client keeps no TIME_WAIT socket), `get N`
//! (send N bytes) and `put N` (take the N bytes after this line, then say `pong`).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::traffic::line::{self, LAST, PING, PONG};

/// What to wait for next.
pub(super) enum Next {
    /// What was waited for until now.
    Same,
    /// Data to read.
    Read,
    /// Room to write.
    Write,
    /// Nothing: close it.
    Close,
}

pub(super) struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    local: SocketAddr,
    name: Arc<str>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes still to take for a `put`.
    taking: u64,
    /// Bytes still to send for a `get`.
    giving: u64,
    closing: bool,
    blocked: bool,
}

/// Bytes that `get` sends.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Connection {
    pub(super) fn new(stream: TcpStream, client: SocketAddr, name: Arc<str>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream,
            client,
            local,
            name,
            input: Vec::new(),
            output: Vec::new(),
            taking: 0,
            giving: 0,
            closing: false,
            blocked: false,
        })
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Does what the socket is ready for: write what is left, else read and answer.
    pub(super) fn step(&mut self, buffer: &mut [u8]) -> io::Result<Next> {
        if !self.blocked {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Next::Close),
                Ok(length) => self.take(&buffer[..length]),
                Err(e) if is_later(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let done = self.flush()?;
        if done && self.closing {
            return Ok(Next::Close);
        }
        let was_blocked = std::mem::replace(&mut self.blocked, !done);
        Ok(match (was_blocked, done) {
            (false, true) | (true, false) => Next::Same,
            (true, true) => Next::Read,
            (false, false) => Next::Write,
        })
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.taking > 0 {
                let length = bytes.len().min(usize::try_from(self.taking).unwrap_or(usize::MAX));
                self.taking -= length as u64;
                if self.taking == 0 {
                    self.output.extend_from_slice(PONG);
                }
                bytes = &bytes[length..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.input.extend_from_slice(bytes);
                return;
            };
            self.input.extend_from_slice(&bytes[..=end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.input);
            self.line(&line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        if line == PING {
            self.output.extend_from_slice(PONG);
        } else if line == LAST {
            self.output.extend_from_slice(PONG);
            self.closing = true;
        } else if let Some(bytes) = number(line, "get ") {
            self.giving += bytes;
        } else if let Some(bytes) = number(line, "put ") {
            self.taking = bytes;
        } else if let Some(answer) = line::answer(line, &self.name, self.client, self.local) {
            self.output.extend_from_slice(&answer);
        } else {
            self.closing = true;
        }
    }

    /// Writes as much as fits; whether that was all.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() || self.giving > 0 {
            let length = usize::try_from(self.giving).unwrap_or(usize::MAX).min(ZEROS.len());
            let from_output = !self.output.is_empty();
            let bytes = if from_output { self.output.as_slice() } else { &ZEROS[..length] };
            match self.stream.write(bytes) {
                Ok(written) if from_output => {
                    self.output.drain(..written);
                }
                Ok(written) => self.giving -= written as u64,
                Err(e) if is_later(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

fn number(line: &[u8], command: &str) -> Option<u64> {
    std::str::from_utf8(line).ok()?.strip_prefix(command)?.trim_end().parse().ok()
}

/// Whether an error only says "later".
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
