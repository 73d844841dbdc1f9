//! The looks of a case: what is asked, and what came of it.

use std::{collections::BTreeSet, fmt, net::SocketAddr, thread::sleep, time::Duration};

use anyhow::Result;
use kproxy_lab::{HoldReport, Outcome, poll_until};

use super::{
    over::Over,
    sight::Sight,
    stage::{Stage, transport},
    step::{Held, Http, Probe},
    words::{self, Owners},
};

/// How long silence must last to count as dropped. A refusal that reaches a TCP socket while
/// connect() still holds its lock is noticed only when the SYN is sent again, after a second.
const SILENCE: Duration = Duration::from_millis(1500);
/// Long enough for a few more requests of a connection that is held.
const A_WHILE: Duration = Duration::from_secs(1);

impl Stage<'_> {
    /// Every address that the texts stand for.
    fn all_destinations(&self, to: &[String]) -> Result<Vec<SocketAddr>> {
        Ok(to.iter().map(|to| self.names.destinations(to)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Asks until what must be seen is seen, or for as long as a change may need.
    pub(super) fn probe(&self, probe: &Probe) -> Result<Sight> {
        let expected = self.expected(&probe.see)?;
        let to = self.all_destinations(&probe.to)?;
        let nobody = Owners::default();
        let owners = if probe.addresses { &nobody } else { &self.world.owners };
        let seen = if probe.sticky {
            self.each(&expected, &probe.from, |from| {
                let mut all = Outcome { attempts: Vec::new() };
                for to in of_family(&to, probe) {
                    for over in &probe.over {
                        all.attempts.extend(self.ask(from, to, *over, probe, &expected)?.attempts);
                    }
                }
                Ok(words::sticky(&all, from, owners))
            })?
        } else {
            let mut asks = Vec::new();
            for from in &probe.from {
                for to in of_family(&to, probe) {
                    asks.extend(probe.over.iter().map(|over| Ask { from, to, over: *over }));
                }
            }
            self.each(&expected, &asks, |ask| {
                let outcome = self.ask(ask.from, ask.to, ask.over, probe, &expected)?;
                Ok(words::outcome(&outcome, ask.from, owners))
            })?
        };
        Ok(self.sight(&probe.probe, &probe.ids, &probe.see, &expected, seen))
    }

    fn ask(
        &self,
        from: &str,
        to: SocketAddr,
        over: Over,
        probe: &Probe,
        expected: &str,
    ) -> Result<Outcome> {
        let place = self.world.lab.place(from)?;
        let mut request = kproxy_lab::Probe::new(transport(over), to)
            .timeout(SILENCE)
            .padding(probe.padding)
            .pause(Duration::from_secs_f32(probe.pause));
        if let Some(bind) = probe.bind {
            request = request.from((bind, 0));
        }
        if expected == "dropped" {
            // Two: longer than the second for which a kernel may hold back an ICMP error.
            return place.probe(request.count(2));
        }
        // One request first: many to a proxy that is not there yet take long.
        let first = place.probe(request.clone())?;
        let answers = expected.contains(" as ");
        if !answers || !first.all_answered() {
            return Ok(first);
        }
        place.probe(request.count(probe.count.unwrap_or_else(|| enough_for(expected))))
    }

    pub(super) fn http(&self, http: &Http) -> Result<Sight> {
        let expected = self.expected(&http.see)?;
        let mut asks = Vec::new();
        for from in &http.from {
            let to = self.all_destinations(&http.to)?;
            asks.extend(to.into_iter().map(|to| Ask { from, to, over: Over::Tcp }));
        }
        let seen = self.each(&expected, &asks, |ask| {
            let place = self.world.lab.place(ask.from)?;
            let outcome = place.http(ask.to, &http.method, &http.path, SILENCE)?;
            Ok(words::http(&outcome))
        })?;
        Ok(self.sight(&http.http, &http.ids, &http.see, &expected, seen))
    }

    pub(super) fn look_at_held(&self, held: &Held) -> Result<Sight> {
        let expected = self.expected(&held.see)?;
        let reports = || -> Result<Vec<HoldReport>> {
            let is_meant = |of: &String| held.of.as_ref().is_none_or(|only| only == of);
            let meant = self.held.iter().filter(|(of, _)| is_meant(of));
            meant.map(|(_, connection)| connection.report()).collect()
        };
        let words = |before: &[HoldReport], after: &[HoldReport]| {
            let pairs = before.iter().zip(after);
            let words: BTreeSet<String> = pairs
                .map(
                    |(before, after)| {
                        if held.now { words::held_now(before, after) } else { words::held(after) }
                    },
                )
                .collect();
            words.into_iter().collect::<Vec<_>>().join("; ")
        };
        let look = || {
            let before = reports()?;
            sleep(A_WHILE);
            Ok(words(&before, &reports()?))
        };
        let is_enough = |seen: &String| *seen == expected || !held.now;
        let seen = poll_until(self.patience, Duration::ZERO, look, is_enough)?;
        Ok(self.sight(&held.held, &held.ids, &held.see, &expected, seen))
    }
}

/// Who asks whom.
struct Ask<'a> {
    from: &'a str,
    to: SocketAddr,
    over: Over,
}

impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.from, self.over, self.to)
    }
}

/// The addresses that a socket bound as the probe's can ask.
fn of_family<'a>(to: &'a [SocketAddr], probe: &'a Probe) -> impl Iterator<Item = SocketAddr> + 'a {
    let fits = |to: &SocketAddr| probe.bind.is_none_or(|bind| bind.is_ipv4() == to.is_ipv4());
    to.iter().copied().filter(move |to| fits(to))
}

/// Requests after which every backend has very probably answered.
fn enough_for(expected: &str) -> u32 {
    let backends = expected.split(" as ").next().map_or(0, |names| names.split(' ').count());
    match backends {
        0 | 1 => 5,
        2 => 20,
        _ => 40,
    }
}
