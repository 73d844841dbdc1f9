//! Services, EndpointSlices, the own Node and Pods that are opted out from a folder of YAML and JSON files.
//!
//! The files hold the objects that one would give an API server: several documents a file, `List`
//! kinds, the same labels; other kinds are passed over. What the API server would fill in is
//! filled in (see [`defaults`]), except addresses and ports that it allocates: those must be
//! written.
//!
//! The folder is watched. Nothing that worked is lost by an edit that went wrong: a document that
//! does not parse is reported with file and line, and as long as a file has such a document, its
//! objects that are found in none of the good documents stay as they were. Where two files hold
//! the same object, the first file by name counts.

mod allocated;
mod defaults;
mod error;
mod file;
mod folder;
mod given;
mod settings;
mod watch;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use allocated::Allocated;
pub(crate) use error::Error;
pub(crate) use given::{Given, files};
pub(crate) use settings::Settings;
pub(crate) use watch::run;
