//! Where packets go: routes, redirects, answers that the programs make themselves.

pub(crate) mod forward;
pub(crate) mod redirect;
pub(crate) mod refuse;
pub(crate) mod route;
