//! Entry points: thin shells over the `try_*` functions beside them.

mod begun;
mod egress;
mod ingress;
mod inject;
pub(crate) mod node;
mod query;
mod release;
mod socket;
