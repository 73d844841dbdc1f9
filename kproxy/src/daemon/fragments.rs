//! Holds fragments back that came before the first one of their packet, beside the control loop.

use std::thread;

use tracing::warn;

use super::shared::SharedDataplane;
use crate::errors::with_causes;
use crate::model::Problem;

/// Starts a thread of its own, which ends with the daemon: the loop may be at work for longer than a
/// fragment may wait. Why it does not start, if so.
pub(super) fn start(dataplane: &SharedDataplane) -> Option<Problem> {
    let holder = match dataplane.lock().fragment_holder() {
        Ok(holder) => holder,
        Err(error) => return Some(problem(&with_causes(&error))),
    };
    let work = move || {
        if let Err(error) = holder.run() {
            warn!(%error, "fragments that overtake the first one of their packet are lost from now on");
        }
    };
    let started = thread::Builder::new().name("kproxy-fragments".into()).spawn(work);
    started.err().map(|error| problem(&format!("start a thread: {error}")))
}

fn problem(what: &str) -> Problem {
    Problem::new(
        "fragments",
        format!("{what}; those that overtake the first one of their packet are lost"),
        "report a bug with this message",
    )
}
