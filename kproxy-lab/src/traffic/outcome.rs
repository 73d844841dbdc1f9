//! What came of a probe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::line::Answer;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// A server answered.
    Answered(Answer),
    /// ECONNREFUSED, from connect(), send() or recv().
    Refused,
    /// Nothing came.
    Timeout,
    /// Another error: the name of the errno or what was wrong.
    Failed(String),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// How it ended.
    pub verdict: Verdict,
    /// getpeername() after connect(); `None` for unconnected sockets.
    pub(crate) peer: Option<SocketAddr>,
    /// Source address that recvfrom() told with the answer; `None` for TCP and SCTP.
    pub(crate) source: Option<SocketAddr>,
    /// getsockname() after the request.
    pub local: Option<SocketAddr>,
    /// Time until the socket was open, with TCP and SCTP: connected; `None` when it never was.
    pub opened: Option<Duration>,
    /// Time that all of it took.
    pub elapsed: Duration,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Every request, in order.
    pub attempts: Vec<Attempt>,
}

impl Outcome {
    /// The answers, in order.
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.attempts.iter().filter_map(|attempt| match &attempt.verdict {
            Verdict::Answered(answer) => Some(answer),
            Verdict::Refused | Verdict::Timeout | Verdict::Failed(_) => None,
        })
    }

    /// Number of answers.
    pub fn answered(&self) -> usize {
        self.answers().count()
    }

    /// Whether every request was answered (and there was one).
    pub fn all_answered(&self) -> bool {
        !self.attempts.is_empty() && self.answered() == self.attempts.len()
    }

    /// Whether every request was refused (and there was one).
    pub fn all_refused(&self) -> bool {
        !self.attempts.is_empty() && self.refused() == self.attempts.len()
    }

    /// Answers of each server.
    pub fn servers(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for answer in self.answers() {
            *counts.entry(answer.server.as_str()).or_default() += 1;
        }
        counts
    }

    /// Names of the servers that answered.
    pub fn server_set(&self) -> BTreeSet<&str> {
        self.servers().into_keys().collect()
    }

    /// Client addresses that the servers saw.
    pub fn clients(&self) -> BTreeSet<IpAddr> {
        self.answers().map(|answer| answer.client.ip()).collect()
    }

    /// Peer addresses that getpeername() told.
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        self.attempts.iter().filter_map(|attempt| attempt.peer).collect()
    }

    /// Source addresses that recvfrom() told.
    pub fn sources(&self) -> BTreeSet<SocketAddr> {
        self.attempts.iter().filter_map(|attempt| attempt.source).collect()
    }

    /// Number of refused requests.
    pub fn refused(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.verdict == Verdict::Refused).count()
    }

    /// Number of requests without any answer or error.
    pub fn timeouts(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.verdict == Verdict::Timeout).count()
    }

    /// Errors other than a refusal.
    pub fn failures(&self) -> Vec<&str> {
        self.attempts
            .iter()
            .filter_map(|attempt| match &attempt.verdict {
                Verdict::Failed(what) => Some(what.as_str()),
                Verdict::Answered(_) | Verdict::Refused | Verdict::Timeout => None,
            })
            .collect()
    }
}

/// One line: `20 requests: n1/a 9, n2/a 11, seen as 10.244.1.11; 2 refused`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests:", self.attempts.len())?;
        let mut separator = " ";
        for (server, count) in self.servers() {
            write!(f, "{separator}{server} {count}")?;
            separator = ", ";
        }
        for client in self.clients() {
            write!(f, "{separator}seen as {client}")?;
            separator = ", ";
        }
        for (count, what) in [(self.refused(), "refused"), (self.timeouts(), "without an answer")] {
            if count > 0 {
                write!(f, "{separator}{count} {what}")?;
                separator = ", ";
            }
        }
        let mut failures = BTreeMap::<&str, usize>::new();
        for failure in self.failures() {
            *failures.entry(failure).or_default() += 1;
        }
        for (failure, count) in failures {
            write!(f, "{separator}{count} failed with {failure}")?;
            separator = ", ";
        }
        Ok(())
    }
}
