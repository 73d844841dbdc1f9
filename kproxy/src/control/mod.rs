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
mod run;
mod settings;
mod sink;
mod state;
mod stored;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use noticeboard::Noticeboard;
pub use planner::Planner;
pub use problems::{News, Origin, PROBLEMS_FILE, Problems};
pub use run::run;
pub use settings::Settings;
pub use sink::{DataplaneSink, Report};
pub use state::State;
