//! `kproxy version`

use std::io::Write;

use anyhow::Result;
use kproxy_common::abi::ABI_VERSION;
use serde::Serialize;

use super::args::{Format, VersionArgs};
use super::exit::Exit;
use super::render::{json, yaml};

/// Versions of this binary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Version {
    /// Version of kproxy.
    pub version: &'static str,
    /// Version of the layouts of its maps, which names the folder of the pins.
    pub abi_version: u32,
}

impl Version {
    /// Of this binary.
    pub(super) const THIS: Self =
        Self { version: env!("CARGO_PKG_VERSION"), abi_version: ABI_VERSION };
}

/// Prints the versions.
///
/// # Errors
/// Those of the writer.
pub(super) fn run(args: VersionArgs, out: &mut dyn Write) -> Result<Exit> {
    let this = Version::THIS;
    match args.output.output {
        Format::Table | Format::Wide => {
            writeln!(out, "kproxy {} (map layout version {})", this.version, this.abi_version)?;
        }
        Format::Json => json::write(out, &this)?,
        Format::Yaml => yaml::write(out, &this)?,
    }
    Ok(Exit::Fine)
}
