//! Runs probes.

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::client::{Client, verdict};
use crate::traffic::{Answer, Attempt, Outcome, Probe, Verdict};

/// Sends every request of a probe, one after the other.
pub(crate) fn run(probe: &Probe) -> Outcome {
    let mut attempts = Vec::new();
    let mut kept: Option<Client> = None;
    for number in 0..probe.count {
        if number > 0 {
            sleep(probe.pause);
        }
        let start = Instant::now();
        let client = match kept.take() {
            Some(client) => Ok(client),
            None => Client::open(probe.transport, probe.to, probe.source(number), probe.timeout),
        };
        let opened = client.is_ok().then(|| start.elapsed());
        let mut attempt = match client {
            Ok(mut client) => {
                let peer = client.peer();
                let result = client.ask(number.into(), probe.padding, probe.timeout);
                let attempt = attempt(result, peer, client.local());
                // A connection that failed is of no more use; a UDP socket is.
                let alive = matches!(attempt.verdict, Verdict::Answered(_))
                    || !matches!(client, Client::Stream(_));
                kept = (probe.same_socket && alive).then_some(client);
                attempt
            }
            Err(error) => attempt(Err(error), None, None),
        };
        (attempt.opened, attempt.elapsed) = (opened, start.elapsed());
        attempts.push(attempt);
    }
    Outcome { attempts }
}

fn attempt(
    result: io::Result<(Answer, Option<SocketAddr>)>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
) -> Attempt {
    let (verdict, source) = match result {
        Ok((answer, source)) => (Verdict::Answered(answer), source),
        Err(error) => (verdict(&error), None),
    };
    Attempt { verdict, peer, source, local, opened: None, elapsed: Duration::ZERO }
}
