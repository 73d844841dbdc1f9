//! How the namespaces of a lab are connected: commands, settings and rules as text. Who runs them
//! stands in `lab`.
//!
//! ```text
//! client eth0 ── client ┐ router ┌ br0 ── n1 ── eth0 ┐ n1 ┌ cni0 ── veth-a ── eth0 n1/a
//!                       └────────┘    └── n2 ── eth0 …    └──────── veth-b ── eth0 n1/b
//! ```
//!
//! This is [`Network::Bridge`]. [`overlay`] puts VXLAN between the nodes, [`pods`] knows how pods
//! are connected to their node.

pub(crate) mod nodes;
pub(crate) mod overlay;
pub(crate) mod pods;
pub(crate) mod rules;
mod script;
pub(crate) mod settings;
mod shape;

pub(crate) use script::Script;
pub(crate) use shape::Shape;
pub use shape::{Feature, Network};
