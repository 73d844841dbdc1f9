//! What kproxy answers over HTTP.

pub mod health_check;
mod http;
pub mod metrics;
