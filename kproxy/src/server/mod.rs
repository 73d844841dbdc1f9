//! What kproxy answers over HTTP.

pub(crate) mod health;
pub(crate) mod health_check;
mod http;
pub(crate) mod metrics;
pub(crate) mod probes;
