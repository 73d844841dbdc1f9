//! Whether the maps are kept in step with the cluster, and since when not.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::cli::status::probe;
use crate::daemon::RunDir;
use crate::model::Problem;
use crate::plan::ServicePortId;

/// Whether the view is fresh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct State {
    /// Pid of the daemon; `None`: it does not run, and nothing changes in the maps.
    pub pid: Option<i32>,
    /// When it last wrote into its run folder, if it does not run: the maps are as they were then, or a
    /// little later. In seconds since 1970.
    pub last_heard: Option<i64>,
    /// Why the daemon itself says that it is not in step.
    pub not_ready: Option<String>,
    /// What it has reported about its source, and about the Services in question.
    pub problems: Vec<Problem>,
}

impl State {
    /// Of the daemon of this run folder; `names`: the Services in question.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn of(run_dir: &RunDir, names: Vec<ServicePortId>) -> Result<Self> {
        let pid = run_dir.running()?;
        let heard = if pid.is_none() { run_dir.last_written() } else { None };
        let names: BTreeSet<String> =
            names.iter().map(|id| format!("{}/{}", id.namespace, id.name)).collect();
        let concerns = |problem: &Problem| {
            problem.object.starts_with("API server")
                || problem.object.split(' ').any(|word| names.contains(word))
        };
        Ok(Self {
            pid,
            last_heard: heard.and_then(|at| Timestamp::try_from(at).ok()).map(Timestamp::as_second),
            not_ready: pid.and_then(|_| probe::why_not_ready(&run_dir.socket())),
            problems: run_dir.problems()?.into_iter().filter(concerns).collect(),
        })
    }

    /// Whether what is told may be out of date.
    pub(super) fn is_stale(&self) -> bool {
        self.pid.is_none()
            || self.not_ready.is_some()
            || self.problems.iter().any(|problem| problem.object.starts_with("API server"))
    }

    /// Sentences for people.
    pub(super) fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        match (self.pid, self.last_heard.and_then(|at| Timestamp::from_second(at).ok())) {
            (Some(pid), _) => told.extend(self.not_ready.as_ref().map(|why| {
                format!("the daemon (pid {pid}) is not in step with the cluster: {why}")
            })),
            (None, Some(at)) => told.push(format!(
                "the daemon is not running: the maps are as it has left them, and it was last heard of at {at}; \
                 changes since then are not in them; start `kproxy run`"
            )),
            (None, None) => told.push(
                "the daemon is not running: the maps are as it has left them, nobody knows when; start \
                 `kproxy run`"
                    .to_owned(),
            ),
        }
        told.extend(self.problems.iter().map(ToString::to_string));
        told
    }
}
