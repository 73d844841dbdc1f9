//! What kproxy knows of Services, EndpointSlices and its own Node, in its own words.

mod problem;

pub use problem::Problem;
