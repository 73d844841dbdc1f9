//! The plan: what the maps should hold, computed from the model without any IO.
//!
//! [`plan_service`] is a pure function of one Service, its EndpointSlices and the node, so a change
//! re-plans only the Services that it touches. [`Claims`] settles the one thing that reaches across
//! Services: two service ports that want the same frontend.

mod check;
mod claims;
mod context;
mod health;
mod maglev;
mod no_local_endpoints;
mod node_ports;
mod opt_out;
mod ranges;
mod service;
mod topology;
mod types;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use check::check_service;
pub(crate) use claims::Claims;
pub(crate) use context::PlanContext;
pub(crate) use health::{HealthCheck, HealthChecks, health_check};
pub use maglev::table as maglev_table;
pub(crate) use no_local_endpoints::{NoLocalEndpoints, Policy};
pub(crate) use node_ports::NodePortAddresses;
pub(crate) use opt_out::{OptOut, SocketVerdict, SocketVerdicts, socket_verdicts};
pub(crate) use service::plan_service;
pub use types::*;
