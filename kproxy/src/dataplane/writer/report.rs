//! What a call did.

use serde::Serialize;

use crate::model::Problem;

/// What one call changed and what it could not do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// `bpf()` calls that changed a map.
    pub writes: usize,
    /// Backend sets that were changed through shared memory, without any call.
    pub words: usize,
    /// What could not be done. What a map refused is tried again when there is room.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Adds up two reports.
    pub fn merge(&mut self, other: Self) {
        self.writes += other.writes;
        self.words += other.words;
        self.problems.extend(other.problems);
    }

    /// Whether nothing was changed and nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.writes == 0 && self.words == 0 && self.problems.is_empty()
    }
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Fill {
    /// Entries in use.
    pub used: u32,
    /// Entries that fit.
    pub capacity: u32,
}
