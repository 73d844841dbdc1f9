//! `kproxy dump`: the tables in the kernel, by name.

use std::io::{self, Write};

use anyhow::Result;

use super::args::{DumpArgs, DumpTable, FilterArgs, Format};
use super::filter::Filter;
use super::pins;
use super::render::{Look, Tone, json, note, table, yaml};
use super::rows::Row;
use super::rows::counter::Refusal;
use super::tables::{Shown, Tables};
use super::Exit;
use crate::dataplane::read::Pins;

/// Reads the pinned maps and prints what was asked for.
///
/// # Errors
/// Maps that cannot be read, and those of the writer.
pub fn run(args: DumpArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let DumpArgs { table, output, filter, pins: place } = args;
    let pins = pins::open(&place.bpffs_root)?;
    let tables = read(&pins, table, &filter)?;
    let shown = tables.show(table, &filter);
    print(out, look, table, output.output, &shown)?;
    Ok(Exit::Fine)
}
