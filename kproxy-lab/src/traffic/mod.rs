//! What the agents of a lab can be asked for, and what came of it: types alone.

mod flood;
mod forge;
mod hold;
mod http;
pub(crate) mod line;
mod load;
mod outcome;
mod probe;
mod steps;

pub use flood::{Flood, FloodReport, Packets, SPOOFED};
pub use forge::{Forge, Forgery};
pub use hold::{Hold, HoldReport};
pub use http::{HttpAnswer, HttpOutcome};
pub use line::Answer;
pub use load::{BULK_BYTES, Load, LoadReport, Work};
pub use outcome::{Attempt, Outcome, Verdict};
pub(crate) use probe::unspecified;
pub use probe::{Probe, Transport, mapped};
pub use steps::{Seen, Step};
