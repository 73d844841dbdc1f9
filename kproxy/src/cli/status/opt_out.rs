//! Whose sockets the socket path leaves alone.

use anyhow::Result;
use kproxy_common::config::config_flags;
use serde::Serialize;

use crate::daemon::RunDir;
use crate::daemon::run_dir::OptedOut;
use crate::dataplane::read::Pins;
use crate::plan::SocketVerdict;

/// Whose sockets the socket path leaves alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct OptOut {
    /// As the daemon was told.
    #[serde(flatten)]
    pub as_told: OptedOut,
    /// Network namespaces of pods that are opted out.
    pub opted_out: usize,
    /// Network namespaces of other pods, which are served.
    pub served: usize,
    /// Network namespaces of pods that may be opted out, and are treated so.
    pub undecided: usize,
}

impl OptOut {
    /// `None`: nobody is opted out.
    pub(super) fn of(pins: &Pins, run_dir: &RunDir) -> Result<Option<Self>> {
        if pins.config().flags & config_flags::OPT_OUT == 0 {
            return Ok(None);
        }
        let verdicts = pins.socket_verdicts()?;
        let count = |wanted| verdicts.values().filter(|verdict| **verdict == wanted).count();
        Ok(Some(Self {
            as_told: run_dir.opted_out()?,
            opted_out: count(SocketVerdict::OptedOut),
            served: count(SocketVerdict::Served),
            undecided: count(SocketVerdict::Undecided),
        }))
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        let OptedOut { pod_cidrs, namespaces } = &self.as_told;
        let namespaces: Vec<String> = namespaces.iter().cloned().collect();
        let of = |what: &str, all: &[String]| {
            (!all.is_empty()).then(|| format!("{what} {}", all.join(", ")))
        };
        let whose = [of("pods in", pod_cidrs), of("pods of", &namespaces)];
        let whose: Vec<String> = whose.into_iter().flatten().collect();
        let Self { opted_out, served, undecided, .. } = self;
        let whose = whose.join("; ");
        format!(
            "{whose}: {opted_out} network namespaces, {served} others served, {undecided} undecided"
        )
    }
}
