//! A socket that is led step by step: what programs do to sockets beside plain asking.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a socket does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// connect().
    Connect(SocketAddr),
    /// connect() to AF_UNSPEC: it is connected no more.
    Dissolve,
    /// getpeername().
    Peer,
    /// Ask whom it is connected to.
    Ask,
    /// Ask with sendto().
    AskAt(SocketAddr),
    /// The same with a source address of the message's own (IP_PKTINFO).
    AskFrom(IpAddr, SocketAddr),
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seen {
    /// Nothing is to be seen.
    Done,
    /// What getpeername() says.
    Peer(SocketAddr),
    /// Who has answered; for UDP where recvfrom() says that it came from.
    Answered {
        /// The server's name.
        server: String,
        /// Where the answer came from.
        source: Option<SocketAddr>,
    },
    /// The name of the errno.
    Failed(String),
}
