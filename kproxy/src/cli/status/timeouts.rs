//! How long flows are kept, where that is not the default.

use anyhow::Result;
use kproxy_common::flow::{FlowState, state::TIMEOUTS};
use serde::Serialize;

use crate::cli::values::typed;
use crate::daemon::RunDir;
use crate::dataplane::read::Pins;

/// A state with a time of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Timeout {
    /// Word of the state.
    pub state: &'static str,
    /// Seconds without a packet after which a flow in it is forgotten.
    pub seconds: u32,
    /// The option or the setting of the node that says so; `None`: the daemon has left no word.
    pub from: Option<String>,
}

/// The states whose times are not the defaults.
pub(super) fn of(pins: &Pins, run_dir: &RunDir) -> Result<Vec<Timeout>> {
    let mut from = run_dir.timeouts()?;
    let all = FlowState::all().zip(pins.config().timeouts).zip(TIMEOUTS);
    let others = all.filter(|((_, seconds), default)| seconds != default);
    Ok(others
        .map(|((state, seconds), _)| Timeout {
            state: state.name(),
            seconds,
            from: from.remove(state.name()),
        })
        .collect())
}

impl Timeout {
    /// For people: `stream 5m (--flow-timeouts)`.
    pub(super) fn text(&self) -> String {
        let from = self.from.as_ref().map_or_else(String::new, |from| format!(" ({from})"));
        format!("{} {}{from}", self.state, typed(self.seconds))
    }
}
