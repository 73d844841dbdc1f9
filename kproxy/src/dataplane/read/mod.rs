//! Reads the pinned maps into plain rows, with the daemon alive or dead: for `kproxy dump`, `kproxy
//! status` and the metrics.
//!
//! ```text
//! Pins::open ─▶ frontends, addresses; services, backends, names; flows; affinity; counters, drops;
//!               active_flows; usage; socket_verdicts; links; config; view ─▶ rows, which serialise with the words of words
//! ```
//!
//! Everything here only reads. One decoder a layout, shared with the writer ([`super::codec`]).

mod activity;
mod affinity;
mod counters;
mod error;
mod flows;
mod frontends;
#[cfg(test)]
mod fuzz;
mod held;
pub(crate) mod hooks;
mod links;
mod netns;
mod pins;
mod rows;
mod services;
mod sockets;
#[cfg(test)]
mod tests;
mod usage;
mod view;
pub(in crate::dataplane) mod words;

pub(crate) use self::{
    activity::ActiveFlow,
    error::{OpenError, ReadError},
    pins::Pins,
    rows::*,
    sockets::Sockets,
    words::{kind_name, name_opt, scope_name, sources_name, verdict_name},
};
pub(super) use self::{error::check_folders, pins::Opener};
