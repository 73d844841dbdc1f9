//! Connections that the tc programs translate, two entries each.

pub(crate) mod admit;
pub(crate) mod adopt;
mod assured;
pub(crate) mod filter;
pub(crate) mod fragments;
pub(crate) mod kind;
pub(crate) mod open;
pub(crate) mod opener;
mod source_port;
pub(crate) mod table;
pub(crate) mod track;
mod unassured;
