//! Services, EndpointSlices, ServiceCIDRs and the own Node from an API server; Pods of this node where
//! namespaces are opted out of the socket path.
//!
//! Watches with kube-proxy's selectors (SEL-01, SEL-04, NODE-01). Each begins with a complete
//! list and lists again whenever it lost track; a list replaces everything that was known, so
//! objects that went away meanwhile are deleted. Objects are turned into model values at once and
//! not kept. An API server that does not answer is waited for, with backoff, for as long as it
//! takes; nothing is taken from the data path meanwhile (LC-11). One that hangs or whose store was set back is
//! noticed by asking it from time to time.

mod client;
mod decoder;
mod error;
mod newest;
mod outage;
mod pods;
mod probe;
mod watch;

pub(crate) use error::Error;
pub(crate) use watch::{LOG_DIRECTIVES, Settings, run};
