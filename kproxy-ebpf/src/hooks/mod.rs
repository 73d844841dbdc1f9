//! Entry points: thin shells over the `try_*` functions beside them.

mod begun;
mod egress;
mod ingress;
pub(crate) mod node;
mod query;
mod release;
mod socket;
