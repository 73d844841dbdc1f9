//! The control loop: events in, plans out.
//!
//! ```text
//! source ─Event─▶ ┐                              ┌─▶ DataplaneSink ─▶ kernel maps
//!                 ├─▶ Planner (model ─▶ plan) ───┼─▶ State ─▶ health checks
//! node addresses ▶┘   re-plans what is touched   ├─▶ Problems ─▶ log, <run-dir>/problems.json
//!                     Noticeboard ───────────────┘
//! ```
//!
//! What comes and how long a pass takes is counted on the way ([`crate::metrics`]).
//!
//! [`Planner`] is synchronous and has no clock; [`run`] feeds it, waits a few milliseconds for more
//! of a burst, and hands the changes to the sink. Nothing reaches the sink before the lists of
//! Services and EndpointSlices are complete (LC-01), and stopping the loop leaves the data path as
//! it is (LC-04).

mod error;
mod inputs;
mod noticeboard;
mod planner;
mod problems;
mod repairs;
mod run;
mod settings;
mod sink;
mod state;
mod stored;

#[cfg(test)]
mod tests;

pub(crate) use error::Error;
pub(crate) use noticeboard::Noticeboard;
pub(crate) use planner::Planner;
pub(crate) use problems::PROBLEMS_FILE;
pub(crate) use repairs::Repairs;
pub(crate) use run::run;
pub(crate) use settings::Settings;
pub(crate) use sink::{DataplaneSink, Report};
pub(crate) use state::State;
