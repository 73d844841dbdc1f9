//! Steps about flows: packets that no honest socket sends, and sockets led step by step.

use std::{net::IpAddr, str::FromStr};

use anyhow::{Context as _, Error, bail};
use kproxy_lab::{Forgery, Packets};
use serde::Deserialize;

use super::{expected::Expected, over::Over};

/// Packets that nothing follows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flood {
    /// In words.
    pub(super) flood: String,
    /// The place that sends them.
    pub(super) from: String,
    /// Address and port in them as their source, of a family that `to` has; each has one of its own
    /// from ranges that nobody has if left out.
    pub(super) source: Option<String>,
    /// To where, one after the other.
    pub(super) to: Vec<String>,
    /// What they are.
    pub(super) packets: Packets,
    /// How many go to each address.
    pub(super) count: u64,
}

/// A packet forged in the name of a client while its connection is idle: whether that still lives
/// some time later.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forge {
    /// In words.
    pub(super) forge: String,
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// The clients, each with a connection of its own.
    pub(super) from: Vec<String>,
    /// To where.
    pub(super) to: Vec<String>,
    /// The packet.
    pub(super) packet: Forgery,
    /// Seconds until the connection is used again.
    pub(super) wait: f32,
    /// What must be seen: who answers then, or the error.
    pub(super) see: Expected,
}

/// Sockets that do one thing after the other, one for each place and family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sockets {
    /// In words.
    pub(super) sockets: String,
    /// Ids that it is for, if not all of the case.
    #[serde(default)]
    pub(super) ids: Vec<String>,
    /// Where they are opened.
    #[serde(default)]
    pub(super) from: Vec<String>,
    /// What they are.
    pub(super) over: Option<Over>,
    /// Port that they are bound to, with their place's own address.
    #[serde(default)]
    pub(super) port: u16,
    /// Words of the earlier step whose sockets go on, in place of new ones.
    #[serde(rename = "with")]
    pub(super) of: Option<String>,
    /// What they do.
    #[serde(rename = "do")]
    pub(super) acts: Vec<Act>,
    /// What must be seen, see [`super::flow`].
    pub(super) see: Expected,
}

/// What a socket does. ADDRESS is written as in [`super::step::Probe::to`].
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Act {
    /// `connect ADDRESS`.
    Connect(String),
    /// `dissolve`: connect() to AF_UNSPEC.
    Dissolve,
    /// `peer`: getpeername().
    Peer,
    /// `ask`: a request to where it is connected.
    Ask,
    /// `ask ADDRESS`: a request to there.
    AskAt(String),
    /// `ask ADDRESS as SOURCE`: the same with a source address of its own (IP_PKTINFO).
    AskFrom(String, IpAddr),
}

impl FromStr for Act {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let words: Vec<&str> = text.split(' ').collect();
        Ok(match words.as_slice() {
            ["connect", to] => Self::Connect((*to).to_owned()),
            ["dissolve"] => Self::Dissolve,
            ["peer"] => Self::Peer,
            ["ask"] => Self::Ask,
            ["ask", to] => Self::AskAt((*to).to_owned()),
            ["ask", to, "as", source] => Self::AskFrom((*to).to_owned(), source.parse()?),
            _ => bail!("nothing that a socket can do: {text}"),
        })
    }
}

impl TryFrom<String> for Act {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse().context("read what a socket does")
    }
}

impl Act {
    /// The address that it names.
    pub(super) fn to(&self) -> Option<&str> {
        match self {
            Self::Connect(to) | Self::AskAt(to) | Self::AskFrom(to, _) => Some(to),
            Self::Dissolve | Self::Peer | Self::Ask => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn what_a_socket_does_is_read() {
        let to = "web:80".to_owned();
        for (text, act) in [
            ("connect web:80", Act::Connect(to.clone())),
            ("dissolve", Act::Dissolve),
            ("peer", Act::Peer),
            ("ask", Act::Ask),
            ("ask web:80", Act::AskAt(to.clone())),
            ("ask web:80 as ::1", Act::AskFrom(to, Ipv6Addr::LOCALHOST.into())),
        ] {
            assert_eq!(text.parse::<Act>().unwrap(), act);
        }
        for text in ["", "connect", "ask web:80 as", "ask web:80 as n1", "peer web:80"] {
            assert!(text.parse::<Act>().is_err(), "{text}");
        }
    }
}
