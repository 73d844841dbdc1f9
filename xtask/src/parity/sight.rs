//! What a look has shown, and whether that is what must be seen.

use std::collections::BTreeSet;

use super::words;

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

/// Whether what was seen is what must be, or one of it: `this | that` where chance decides.
pub(super) fn fits(expected: &str, seen: &str) -> bool {
    expected.split(" | ").any(|one| one == seen)
}

/// As [`fits`] on another network than the bridge.
pub(super) fn fits_elsewhere(expected: &str, seen: &str) -> bool {
    let is_even = |text: &str| !text.contains(words::UNEVENLY);
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
