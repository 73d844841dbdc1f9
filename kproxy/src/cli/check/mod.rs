//! `kproxy check`: can kproxy run on this node, and what is in its way.
//!
//! Everything is looked at and nothing changed: the programs are loaded once with maps of their own, and
//! forgotten.

pub(super) mod finding;
mod machine;
mod network;
mod others;
mod ports;
pub(super) mod print;

use std::io::Write;

use anyhow::Result;

use self::finding::{Finding, Report};
use super::args::Format;
use super::exit::Exit;
use super::render::{Look, json, yaml};
use crate::daemon::Settings;
use crate::dataplane::read::hooks::ProgramNames;
use crate::node::NodeState;

/// Looks at everything that kproxy would meet with these settings, and prints.
///
/// # Errors
/// Those of the writer.
pub(super) fn run(
    settings: &Settings,
    format: Format,
    look: &Look,
    out: &mut dyn Write,
) -> Result<Exit> {
    let report = Report::of(findings(settings));
    match format {
        Format::Table | Format::Wide => print::print(out, look, &report)?,
        Format::Json => json::write(out, &report)?,
        Format::Yaml => yaml::write(out, &report)?,
    }
    Ok(if report.can_run { Exit::Fine } else { Exit::No })
}

fn findings(settings: &Settings) -> Vec<Finding> {
    let mut all = machine::look(settings);
    let (node, found) = network::look(settings);
    all.extend(found);
    all.extend(ports::look(settings));
    let names = ProgramNames::read();
    all.extend(others::look(settings, node.as_ref().unwrap_or(&NodeState::default()), &names));
    all
}
