//! `kproxy explain`: what becomes of a connection, and why.
//!
//! `resolve` turns what was typed into questions, [`dataplane::explain`](crate::dataplane::explain)
//! decides them, `steps` puts the facts into words, `print` shows them.

pub(super) mod answers;
mod dialled;
pub(super) mod nearest;
pub(super) mod print;
pub(super) mod resolve;
mod sender;
pub(super) mod state;
pub(super) mod steps;

use std::io::Write;

use anyhow::Result;

use self::answers::Answers;
use self::print::print;
use self::state::State;
use super::args::{ExplainArgs, Format};
use super::exit::Exit;
use super::render::{Look, json, yaml};
use crate::daemon::RunDir;
use crate::dataplane::read::Pins;

/// Finds out and prints.
///
/// # Errors
/// What was typed is not there or is ambiguous, maps or run folder that cannot be read, programs that cannot be run, and those of the
/// writer.
pub(super) fn run(args: ExplainArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let ExplainArgs { target, from, simulate, output, pins, run_dir } = args;
    let view = Pins::open(&pins.bpffs_root)?.view()?;
    let dialled = resolve::resolve(&view, &target)?;
    let senders = sender::of(&view, from);
    let names = dialled.iter().filter_map(|dialled| dialled.service.as_ref()).cloned().collect();
    let state = State::of(&RunDir::new(run_dir.run_dir), names)?;
    let mut answers = Answers::of(&view, &dialled, &senders, state);
    if simulate {
        answers.simulate(&view)?;
    }
    match output.output {
        Format::Table => print(out, look, &answers, false)?,
        Format::Wide => print(out, look, &answers, true)?,
        Format::Json => json::write(out, &answers)?,
        Format::Yaml => yaml::write(out, &answers)?,
    }
    Ok(if answers.all_answered() { Exit::Fine } else { Exit::No })
}
