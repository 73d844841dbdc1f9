//! Lookups: two questions from one socket at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

/// What is asked for; each server answers with addresses of its own.
pub(super) const NAME: &str = "self.lab";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Kind of socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Way {
    /// A connected UDP socket for each lookup: glibc.
    Connected,
    /// An unconnected UDP socket for each lookup: musl.
    Unconnected,
    /// One unconnected UDP socket for all lookups.
    Kept,
    /// A TCP connection for each lookup, both questions at once.
    Tcp,
}

pub(super) const WAYS: [Way; 4] = [Way::Connected, Way::Unconnected, Way::Kept, Way::Tcp];

/// Lookups to make, one after the other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Lookups {
    to: SocketAddr,
    way: Way,
    rounds: u16,
}

/// What came of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Lookups with both answers.
    pub(super) answered: u16,
    /// Lookups by the server that answered.
    pub(super) servers: BTreeMap<u8, u16>,
    /// Lookups with answers of two servers.
    pub(super) torn: u16,
    /// Addresses other than the one asked that answers came from.
    foreign: BTreeSet<SocketAddr>,
    failed: Vec<String>,
}

impl Seen {
    pub(super) fn is_flawless(&self) -> bool {
        self.answered > 0 && self.foreign.is_empty() && self.failed.is_empty()
    }
}

/// An answer: the question's number and the last byte of the address in it.
type Answer = (u16, u8);

impl Lookups {
    pub(super) const fn new(to: SocketAddr, way: Way, rounds: u16) -> Self {
        Self { to, way, rounds }
    }

    /// Makes them, from here.
    pub(crate) fn run(self) -> Seen {
        let mut seen = Seen::default();
        let mut kept = None;
        for round in 0..self.rounds {
            match self.look_up(2 * round, &mut kept, &mut seen.foreign) {
                Ok([one, other]) => {
                    seen.answered += 1;
                    *seen.servers.entry(one).or_default() += 1;
                    seen.torn += u16::from(one != other);
                }
                Err(error) => seen.failed.push(format!("lookup {round}: {error}")),
            }
        }
        seen
    }

    /// One lookup; the servers of its two answers.
    fn look_up(
        self,
        number: u16,
        kept: &mut Option<UdpSocket>,
        foreign: &mut BTreeSet<SocketAddr>,
    ) -> io::Result<[u8; 2]> {
        let questions = [question(number, TYPE::A), question(number + 1, TYPE::AAAA)];
        if self.way == Way::Tcp {
            return in_order(number, self.over_tcp(&questions)?);
        }
        let socket = match kept.take() {
            Some(socket) => socket,
            None => self.open()?,
        };
        for question in &questions {
            match self.way {
                Way::Connected => socket.send(question)?,
                _ => socket.send_to(question, self.to)?,
            };
        }
        let mut answers = Vec::new();
        let mut buffer = [0; 4096];
        while answers.len() < questions.len() {
            let (length, source) = socket.recv_from(&mut buffer)?;
            if source != self.to {
                foreign.insert(source);
            }
            let answer = read(&buffer[..length])?;
            // A late answer of a lookup that failed is passed over.
            if answer.0 == number || answer.0 == number + 1 {
                answers.push(answer);
            }
        }
        if self.way == Way::Kept {
            *kept = Some(socket);
        }
        in_order(number, answers)
    }

    fn open(self) -> io::Result<UdpSocket> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        if self.way == Way::Connected {
            socket.connect(self.to)?;
        }
        Ok(socket)
    }

    fn over_tcp(self, questions: &[Vec<u8>; 2]) -> io::Result<Vec<Answer>> {
        let mut stream = TcpStream::connect_timeout(&self.to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut both = Vec::new();
        for question in questions {
            // RFC 1035, 4.2.2: each message after its length.
            both.extend(u16::try_from(question.len()).map_err(io::Error::other)?.to_be_bytes());
            both.extend(question);
        }
        stream.write_all(&both)?;
        questions
            .iter()
            .map(|_question| {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut message = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut message)?;
                read(&message)
            })
            .collect()
    }
}

fn question(number: u16, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(number);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(Question::new(Name::new_unchecked(NAME), kind, class, false));
    packet.build_bytes_vec().unwrap()
}

/// Reads an answer: even numbers ask for an IPv4 address, odd ones for an IPv6 address.
fn read(message: &[u8]) -> io::Result<Answer> {
    let packet = Packet::parse(message).map_err(io::Error::other)?;
    let number = packet.id();
    match packet.answers.first().map(|record| &record.rdata) {
        Some(RData::A(a)) if number % 2 == 0 => Ok((number, a.address.to_be_bytes()[3])),
        Some(RData::AAAA(aaaa)) if number % 2 == 1 => Ok((number, aaaa.address.to_be_bytes()[15])),
        _ => Err(io::Error::other(format!("not what was asked for: {packet:?}"))),
    }
}

/// The servers of the two answers of a lookup.
fn in_order(number: u16, mut answers: Vec<Answer>) -> io::Result<[u8; 2]> {
    answers.sort_unstable();
    match answers[..] {
        [(first, one), (second, other)] if first == number && second == number + 1 => {
            Ok([one, other])
        }
        _ => Err(io::Error::other(format!("not both answers: {answers:?}"))),
    }
}
