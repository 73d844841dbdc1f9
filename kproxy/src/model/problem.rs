//! Bad input as data.

use serde::{Deserialize, Serialize};

/// Something that kproxy cannot use or do, reported beside everything that works.
///
/// One bad object never stops another: it becomes a `Problem`, is logged once, and stays on the
/// list that `kproxy status` shows until it is mended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about, with its kind: `Service default/web`, `manifest web.yaml:12`.
    pub object: String,
    /// What is wrong and what follows from it.
    pub what: String,
    /// What a person can do.
    pub remedy: String,
}

impl Problem {
    /// From its three parts.
    pub fn new(
        object: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { object: object.into(), what: what.into(), remedy: remedy.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.object, self.what, self.remedy)
    }
}
