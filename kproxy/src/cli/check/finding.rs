//! What a check found.

use std::error::Error;

use serde::Serialize;

use crate::errors::with_causes;
use crate::model::Problem;

/// What to think of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Ok,
    /// kproxy serves, and something is worth a look.
    Warning,
    /// kproxy does not start, or Services do not answer as they should.
    Failure,
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// What to think of it.
    pub outcome: Outcome,
    /// What is there, and what follows from it.
    pub found: String,
    /// What a person can do; `None`: nothing needs to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Ok, found: found.into(), remedy: None }
    }

    /// Worth a look.
    pub(crate) fn warning(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { outcome: Outcome::Warning, remedy: Some(remedy.into()), ..Self::ok(check, found) }
    }

    /// In the way.
    pub(crate) fn failure(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { outcome: Outcome::Failure, ..Self::warning(check, found, remedy) }
    }

    /// What the daemon would report.
    pub(super) fn of_problem(check: &'static str, outcome: Outcome, problem: Problem) -> Self {
        let Problem { object, what, remedy } = problem;
        Self { outcome, ..Self::warning(check, format!("{object}: {what}"), remedy) }
    }

    /// What could not be looked at.
    pub(super) fn unseen(check: &'static str, error: &(dyn Error + 'static)) -> Self {
        let found = format!("cannot be looked at: {}", with_causes(error));
        Self::warning(check, found, "run `kproxy check` as root on the node, or in kproxy's pod")
    }
}

/// What all checks found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Report {
    /// Whether nothing failed.
    pub can_run: bool,
    /// How many checks found what they should.
    pub ok: usize,
    /// How many found something worth a look.
    pub warnings: usize,
    /// How many found something in the way.
    pub failures: usize,
    /// Each check.
    pub checks: Vec<Finding>,
}

impl Report {
    /// Counts.
    pub(crate) fn of(checks: Vec<Finding>) -> Self {
        let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
        let failures = count(Outcome::Failure);
        Self {
            can_run: failures == 0,
            ok: count(Outcome::Ok),
            warnings: count(Outcome::Warning),
            failures,
            checks,
        }
    }
}
