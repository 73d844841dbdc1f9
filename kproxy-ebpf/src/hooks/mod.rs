//! Entry points: thin shells over the `try_*` functions beside them.

mod egress;
mod ingress;
mod inject;
mod query;
mod release;
mod socket;
