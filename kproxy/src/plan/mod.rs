//! The plan: what the maps should hold, computed from the model without any IO.

mod types;

pub use types::*;
