//! What a guest's steps say of its kernel.

use serde::Deserialize;

use super::{
    budgets::{Figures, figures},
    features::{Facts, NETNS_COOKIE, facts},
    guest::Ended,
};

/// Names of steps; those of modes and of the lab go on with what is run.
pub(super) const FACTS: &str = "facts";
pub(super) const ROWS: &str = "packet-rows";
pub(super) const MODE: &str = "mode:";
pub(super) const LAB: &str = "lab:";

/// What was seen of one kernel.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Major and minor version.
    pub(super) series: String,
    /// What `uname -r` says.
    pub(super) release: String,
    /// What it has.
    pub(super) facts: Facts,
    /// Instructions that the verifier walked, by program.
    pub(super) verified: Figures,
    /// Programs that it loaded.
    pub(super) programs: usize,
    /// Bytes of stack, by program.
    pub(super) stack: Figures,
    /// Rows of packets that passed, and that failed.
    pub(super) rows: (u64, u64),
    /// Modes and tests of the lab, with whether they passed.
    pub(super) modes: Vec<(String, bool)>,
    pub(super) lab: Vec<(String, bool)>,
    /// What kproxy itself says that it cannot do here.
    pub(super) degrades: Vec<String>,
    /// What went wrong, each with the end of what was printed.
    pub(super) failures: Vec<String>,
}

/// The part of `kproxy status -o json` that matters.
#[derive(Deserialize)]
struct Status {
    reasons: Vec<String>,
    devices: Vec<serde::de::IgnoredAny>,
    problems: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    object: String,
    what: String,
    remedy: String,
}

impl Outcome {
    pub(super) fn of(series: &str, release: &str, steps: &[Ended]) -> Self {
        let mut outcome =
            Self { series: series.to_owned(), release: release.to_owned(), ..Self::default() };
        for step in steps {
            outcome.take(step);
        }
        outcome
    }

    fn take(&mut self, step: &Ended) {
        let passed = step.code == Some(0);
        if let Some(mode) = step.name.strip_prefix(MODE) {
            let passed = self.take_status(step).inspect_err(|why| {
                self.failures.push(format!("{}: {why}", step.name));
            });
            self.modes.push((mode.to_owned(), passed.is_ok()));
            return;
        }
        if let Some(test) = step.name.strip_prefix(LAB) {
            self.lab.push((test.to_owned(), passed));
        } else if step.name == FACTS {
            self.facts.append(&mut facts(&step.text));
        } else {
            self.take_figures(&step.text);
            self.rows = rows(&step.text);
            if !passed && self.rows.1 == 0 {
                // It never came to its end.
                self.rows.1 = 1;
            }
        }
        if !passed {
            self.failures.push(format!("{}: {}", step.name, end_of(&step.text)));
        }
    }

    /// The figures that the tests of packets have printed.
    pub(super) fn take_figures(&mut self, text: &str) {
        self.verified = figures("verified", text);
        self.stack = figures("stack", text);
        self.programs = text.lines().filter(|line| line.starts_with("verified ")).count();
    }

    /// Whether kproxy ran and is in order, but for what the kernel lacks.
    fn take_status(&mut self, step: &Ended) -> Result<(), String> {
        let between =
            step.text.split_once("@status\n").and_then(|(_, rest)| rest.split_once("@log\n"));
        let Some((json, log)) = between else { return Err(end_of(&step.text)) };
        let status: Status =
            serde_json::from_str(json).map_err(|error| format!("{error}: {}", end_of(log)))?;
        let mut wrong = status.reasons;
        wrong.retain(|reason| !reason.ends_with("reported by the daemon"));
        for Problem { object, what, remedy } in status.problems {
            let text = format!("{object}: {what}; {remedy}");
            if !remedy.contains("use Linux") {
                wrong.push(text);
            } else if !self.degrades.contains(&text) {
                self.degrades.push(text);
            }
        }
        let is_told = self.degrades.iter().any(|text| text.contains("SO_NETNS_COOKIE"));
        self.facts.insert(NETNS_COOKIE.to_owned(), !is_told);
        if status.devices.is_empty() {
            wrong.push("nothing is attached to a device".to_owned());
        }
        if step.code != Some(0) {
            wrong.push(end_of(log));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// How many of all that was tried failed.
    pub(super) fn failed(&self) -> u64 {
        let of = |all: &[(String, bool)]| all.iter().filter(|(_, passed)| !passed).count() as u64;
        self.rows.1 + of(&self.modes) + of(&self.lab)
    }

    /// The program that the verifier walks most of.
    pub(super) fn most_walked(&self) -> Option<(&String, u32)> {
        let most = self.verified.iter().max_by_key(|(_, instructions)| **instructions);
        most.map(|(name, instructions)| (name, *instructions))
    }
}

/// Passed and failed in `test result: ok. 114 passed; 0 failed; …`.
fn rows(text: &str) -> (u64, u64) {
    let number = |what: &str| {
        let line = text.lines().find(|line| line.starts_with("test result:"))?;
        let mut words = line.split([' ', ';']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            if words.peek() == Some(&what) {
                return word.parse().ok();
            }
        }
        None
    };
    (number("passed").unwrap_or_default(), number("failed").unwrap_or_default())
}

/// The last lines of what was printed.
fn end_of(text: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(json: &str, code: i32) -> Outcome {
        let text = format!("@status\n{json}\n@log\nin sync\n");
        let step = Ended { name: "mode:all/bpf".into(), text, code: Some(code), seconds: 1 };
        Outcome::of("6.1", "6.1.0", &[step])
    }

    #[test]
    fn what_the_kernel_lacks_degrades_and_everything_else_fails() {
        let json = |reasons: &str, problems: &str| {
            format!(r#"{{"reasons":[{reasons}],"devices":[{{}}],"problems":[{problems}]}}"#)
        };
        let lack = r#"{"object":"opt-out","what":"w","remedy":"use Linux 5.14 (SO_NETNS_COOKIE)"}"#;
        let degraded = mode(&json(r#""1 problem reported by the daemon""#, lack), 0);
        assert_eq!((degraded.failed(), degraded.degrades.len()), (0, 1));
        assert!(!degraded.facts[NETNS_COOKIE]);
        let other = r#"{"object":"nftables","what":"w","remedy":"install nft"}"#;
        assert_eq!(mode(&json("", other), 0).failed(), 1);
        assert_eq!(mode(&json(r#""not attached to eth0""#, ""), 0).failed(), 1);
        assert_eq!(mode(&json("", ""), 2).failed(), 1);
        assert_eq!(mode("", 0).failed(), 1);
        assert_eq!(mode(&json("", ""), 0).failed(), 0);
    }

    #[test]
    fn rows_are_counted_and_a_run_without_an_end_has_failed() {
        let step =
            |text: &str, code| Ended { name: ROWS.into(), text: text.into(), code, seconds: 9 };
        let text = "verified kp_a 12\ntest result: ok. 7 passed; 0 failed; 0 ignored\n";
        let outcome = Outcome::of("6.1", "6.1.0", &[step(text, Some(0))]);
        assert_eq!((outcome.rows, outcome.programs, outcome.failed()), ((7, 0), 1, 0));
        assert_eq!(outcome.most_walked(), Some((&"kp_a".to_owned(), 12)));
        assert_eq!(Outcome::of("6.1", "6.1.0", &[step("", None)]).failed(), 1);
    }
}
