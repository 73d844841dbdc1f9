//! Over which sockets a case asks.

use std::fmt;

use serde::Deserialize;

/// Kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Over {
    /// TCP.
    Tcp,
    /// UDP with connect().
    Udp,
    /// UDP without.
    UdpUnconnected,
    /// Multipath TCP.
    Mptcp,
}

impl Over {
    pub(super) fn tcp() -> Vec<Self> {
        vec![Self::Tcp]
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::UdpUnconnected => "unconnected UDP",
            Self::Mptcp => "MPTCP",
        })
    }
}
