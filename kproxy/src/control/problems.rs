//! The list of current problems.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::model::{Problem, ServiceName};
use crate::plan::ServicePortId;

use super::noticeboard::Notices;

/// Name of the list in the run directory: a JSON array of [`Problem`]s.
pub(crate) const PROBLEMS_FILE: &str = "problems.json";

/// Most lines logged at once; the rest is in the file.
const MAX_LOGGED: usize = 20;

/// Who said that something is wrong. Each origin takes its problems back itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Origin {
    /// Reading an object of this kind and name.
    Object(&'static str, String),
    /// Planning a Service.
    Plan(ServiceName),
    /// A frontend that two service ports want.
    Claim(ServicePortId),
    /// A source about itself, by a name of its choice.
    Source(String),
    /// A setting or a kind of object as a whole, by its name.
    Whole(&'static str),
    /// Another part of the daemon, by the name under which it has posted.
    Notice(String),
    /// The data path, about this object.
    Sink(String),
}

/// Problems by origin.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    by_origin: BTreeMap<Origin, Vec<Problem>>,
    reported: BTreeSet<Problem>,
    changed: bool,
}

/// What changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Problems that were not there before.
    pub appeared: Vec<Problem>,
    /// Problems that are mended.
    pub mended: Vec<Problem>,
}

impl Problems {
    /// Replaces what `origin` said.
    pub(crate) fn set(&mut self, origin: Origin, problems: Vec<Problem>) {
        self.changed |= if problems.is_empty() {
            self.by_origin.remove(&origin).is_some()
        } else {
            let before = self.by_origin.insert(origin, problems.clone());
            before.as_ref() != Some(&problems)
        };
    }

    /// Forgets objects of a kind that are not in `listed`.
    pub(crate) fn retain_objects(&mut self, kind: &'static str, listed: &BTreeSet<String>) {
        let before = self.by_origin.len();
        self.by_origin.retain(|origin, _| match origin {
            Origin::Object(of, name) => *of != kind || listed.contains(name),
            _ => true,
        });
        self.changed |= self.by_origin.len() != before;
    }

    /// Takes what the data path said after a step about `objects`; `None`: about everything.
    pub(crate) fn set_sink(&mut self, objects: Option<&BTreeSet<String>>, problems: Vec<Problem>) {
        let before = self.by_origin.len();
        self.by_origin.retain(|origin, _| match origin {
            Origin::Sink(object) => objects.is_some_and(|objects| !objects.contains(object)),
            _ => true,
        });
        self.changed |= self.by_origin.len() != before;
        let mut by_object: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
        for problem in problems {
            by_object.entry(problem.object.clone()).or_default().push(problem);
        }
        for (object, problems) in by_object {
            self.set(Origin::Sink(object), problems);
        }
    }

    /// Takes what the parts of the daemon have posted, all of it.
    pub(super) fn set_notices(&mut self, notices: &Notices) {
        let before = self.by_origin.len();
        self.by_origin.retain(|origin, _| match origin {
            Origin::Notice(of) => notices.contains_key(of),
            _ => true,
        });
        self.changed |= self.by_origin.len() != before;
        for (of, problems) in notices {
            self.set(Origin::Notice(of.clone()), problems.clone());
        }
    }

    /// Whether the data path could not do something.
    pub(crate) fn has_sink_problems(&self) -> bool {
        self.by_origin.keys().any(|origin| matches!(origin, Origin::Sink(_)))
    }

    /// All current problems, sorted, each once.
    pub(crate) fn current(&self) -> BTreeSet<Problem> {
        self.by_origin.values().flatten().cloned().collect()
    }

    /// What changed since the last call.
    pub(crate) fn take_news(&mut self) -> News {
        if !std::mem::take(&mut self.changed) {
            return News::default();
        }
        let current = self.current();
        let news = News {
            appeared: current.difference(&self.reported).cloned().collect(),
            mended: self.reported.difference(&current).cloned().collect(),
        };
        self.reported = current;
        news
    }
}

impl News {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.appeared.is_empty() && self.mended.is_empty()
    }

    /// One line a problem: warn when it is new, info when it is mended.
    pub(crate) fn log(&self) {
        for Problem { object, what, remedy } in self.appeared.iter().take(MAX_LOGGED) {
            warn!(%object, %what, %remedy, "problem");
        }
        if let Some(more) = self.appeared.len().checked_sub(MAX_LOGGED + 1) {
            warn!(count = more + 1, "more problems, see kproxy status");
        }
        for Problem { object, what, .. } in self.mended.iter().take(MAX_LOGGED) {
            info!(%object, %what, "problem is gone");
        }
    }
}

/// Why the list cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write {}; kproxy status will not show the current problems", path.display())]
pub(super) struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the list for `kproxy status`: a reader sees the old list or the new one.
///
/// # Errors
/// The directory cannot be made or written.
pub(super) fn write(run_dir: &Path, problems: &BTreeSet<Problem>) -> Result<(), WriteError> {
    let path = run_dir.join(PROBLEMS_FILE);
    let attempt = || -> io::Result<()> {
        fs::create_dir_all(run_dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(".problems-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(run_dir)?;
        serde_json::to_writer_pretty(&mut file, problems)?;
        file.write_all(b"\n")?;
        file.persist(&path)?;
        Ok(())
    };
    attempt().map_err(|source| WriteError { path: path.clone(), source })
}
