//! The looks of a case: what is asked, what came of it, and whether that is what must be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use kproxy_lab::{HoldReport, Network, Outcome};

use super::{
    case::See,
    seen::{self, Owners},
    stage::{PAUSE, Stage, transport},
    step::{Held, Http, Over, Probe},
};

/// How long silence must last to count as dropped. A refusal that reaches a TCP socket while
/// connect() still holds its lock is noticed only when the SYN is sent again, after a second.
const SILENCE: Duration = Duration::from_millis(1500);
/// Long enough for a few more requests of a connection that is held.
const A_WHILE: Duration = Duration::from_secs(1);

/// Characters of an error that are shown.
const LONGEST_ERROR: usize = 300;
/// What a step that cannot fail must show.
const DONE: &str = "done";

/// What one look has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// The look, in words.
    pub(super) probe: String,
    /// Ids that it is for, if not all of the case.
    pub(super) ids: Vec<String>,
    /// What had to be seen.
    pub(super) expected: String,
    /// What was seen.
    pub(super) seen: String,
}

impl Sight {
    /// What had to be seen was seen.
    pub(super) fn is_expected(&self) -> bool {
        self.expected == self.seen
    }

    /// The cases say what is seen on the network `bridge`. Who answers is the same on any, but which
    /// client it sees hangs on the CNI's own masquerade rules, and so does whether a dead end is
    /// told: with no other difference, what is seen here is what is expected here.
    pub(super) fn on_another_network(mut self) -> Self {
        if !self.is_failure() && fits_elsewhere(&self.expected, &self.seen) {
            // Which of the two it is hangs on how long the kernel waited for a neighbour.
            self.seen = self.seen.replace("unreachable", "dropped");
            self.expected.clone_from(&self.seen);
        }
        self
    }

    /// Made by [`Self::failure`].
    pub(super) fn is_failure(&self) -> bool {
        self.expected == DONE
    }

    /// Something that had to work and did not.
    pub(super) fn failure(what: &str, error: &str) -> Self {
        let (probe, expected) = (what.to_owned(), DONE.to_owned());
        // An API server says everything three times.
        let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
        let error: String = error.chars().take(LONGEST_ERROR).collect();
        Self { probe, ids: Vec::new(), expected, seen: format!("failed: {error}") }
    }
}

impl Stage<'_> {
    pub(super) fn expected(&self, see: &See) -> Result<String> {
        self.names.fill_in(see.on(self.world.who))
    }

    /// What a look has shown. Each proxy picks backends of its own; where the one that was remembered
    /// is seen, its name is, so that proxies can be compared.
    pub(super) fn sight(
        &self,
        what: &str,
        ids: &[String],
        see: &See,
        expected: &str,
        seen: String,
    ) -> Sight {
        let named = see.on(self.world.who).replace("${", "").replace('}', "");
        let seen = if fits(expected, &seen) { named.clone() } else { seen };
        Sight { probe: what.to_owned(), ids: ids.to_vec(), expected: named, seen }
    }

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
                Ok(seen::sticky(&all, from, owners))
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
                Ok(seen::words(&outcome, ask.from, owners))
            })?
        };
        Ok(self.sight(&probe.probe, &probe.ids, &probe.see, &expected, seen))
    }

    /// Looks at each item, side by side, again and again until it shows what is expected.
    pub(super) fn each<T: Sync + ToString>(
        &self,
        expected: &str,
        items: &[T],
        look: impl Fn(&T) -> Result<String> + Sync,
    ) -> Result<String> {
        let start = Instant::now();
        // Thousands of connections on the same few ports would be all that more looks bring.
        let elsewhere = self.world.lab.network() != Network::Bridge;
        let until_expected = |item: &T| loop {
            let sight = look(item)?;
            let enough = fits(expected, &sight) || elsewhere && fits_elsewhere(expected, &sight);
            if enough || start.elapsed() > self.patience {
                return Ok(sight);
            }
            sleep(PAUSE);
        };
        let mut sights = BTreeMap::<String, BTreeSet<String>>::new();
        let looks: Vec<Result<String>> = scope(|scope| {
            let until_expected = &until_expected;
            let threads: Vec<_> =
                items.iter().map(|item| scope.spawn(move || until_expected(item))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<String>>| {
                thread.join().map_err(|_panic| anyhow!("a look panicked"))?
            };
            threads.into_iter().map(join).collect()
        });
        for (item, sight) in items.iter().zip(looks) {
            sights.entry(sight?).or_default().insert(item.to_string());
        }
        if sights.len() == 1 {
            return Ok(sights.into_keys().collect());
        }
        let parts = sights.into_iter().map(|(sight, items)| {
            format!("{sight} ({})", items.into_iter().collect::<Vec<_>>().join(", "))
        });
        Ok(parts.collect::<Vec<_>>().join("; "))
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
            Ok(seen::http(&outcome))
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
                        if held.now { seen::held_now(before, after) } else { seen::held(after) }
                    },
                )
                .collect();
            words.into_iter().collect::<Vec<_>>().join("; ")
        };
        let start = Instant::now();
        let seen = loop {
            let before = reports()?;
            sleep(A_WHILE);
            let seen = words(&before, &reports()?);
            if seen == expected || !held.now || start.elapsed() > self.patience {
                break seen;
            }
        };
        Ok(self.sight(&held.held, &held.ids, &held.see, &expected, seen))
    }
}

/// Whether what was seen is what must be, or one of it: `this | that` where chance decides.
fn fits(expected: &str, seen: &str) -> bool {
    expected.split(" | ").any(|one| one == seen)
}

/// Who asks whom.
struct Ask<'a> {
    from: &'a str,
    to: SocketAddr,
    over: Over,
}

impl std::fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// As [`fits`] on another network than the bridge.
fn fits_elsewhere(expected: &str, seen: &str) -> bool {
    let is_even = |text: &str| !text.contains(seen::UNEVENLY);
    is_even(expected) == is_even(seen)
        && expected.split(" | ").any(|one| outcomes(one) == outcomes(seen))
}

/// What is seen, without the client that the servers saw.
fn outcomes(seen: &str) -> BTreeSet<&str> {
    let servers = seen.split("; ").map(|part| part.split(" as ").next().unwrap_or(part));
    let is_dead_end = |servers: &str| {
        let what = servers.split(" (").next();
        what == Some("unreachable") || what == Some("dropped")
    };
    servers.map(|servers| if is_dead_end(servers) { "dropped" } else { servers }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_chance_decides_one_of_several_fits() {
        assert!(fits("a as n1 | b as n1", "b as n1"));
        assert!(fits("a as n1", "a as n1"));
        assert!(!fits("a as n1 | b as n1", "a b as n1"));
        assert!(!fits("a as n1", ""));
    }

    #[test]
    fn another_network_may_show_another_client_and_nothing_else() {
        for (expected, seen, is_expected) in [
            ("n2/a as itself", "n2/a as n1", true),
            ("router as itself", "router as itself (p); router as n1 (q)", true),
            ("unreachable", "dropped", true),
            ("dropped", "dropped (p); unreachable (q)", true),
            ("dropped", "dropped (p); n2/a (sometimes) (q)", false),
            ("n2/a as itself", "n2/b as itself", false),
            ("n2/a as itself", "dropped", false),
            ("refused", "dropped", false),
            ("n1/a as itself | n2/a as itself", "n2/a as n1", true),
            ("n1/a n2/a as itself", "n1/a n2/a as n1, unevenly", false),
        ] {
            let (probe, ids) = ("p".into(), Vec::new());
            let sight = Sight { probe, ids, expected: expected.into(), seen: seen.into() };
            assert_eq!(sight.on_another_network().is_expected(), is_expected, "{seen}");
        }
        assert!(!Sight::failure("a step", "broken").on_another_network().is_expected());
    }
}
