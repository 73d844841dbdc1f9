//! Whom a lab belongs to, and how it is removed whatever ends its owner.

pub(crate) mod clean;
pub(crate) mod owner;
pub(crate) mod signals;
pub(crate) mod watcher;
