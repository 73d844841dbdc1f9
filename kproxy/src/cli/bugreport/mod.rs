//! `kproxy bugreport`: one archive with what somebody needs to see who was not there.
//!
//! Files that hold secrets (kubeconfig, tokens, keys, the environment) are never opened, and what looks like a
//! secret all the same is taken out of every part ([`scrub`]). A part that cannot be had is a line of the summary.

mod archive;
mod daemon;
mod node;
mod parts;
mod scrub;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;

use self::archive::archive;
use self::parts::{Part, collect};
use super::args::BugreportArgs;
use super::dump::columns::bytes;
use super::exit::Exit;
use super::render::table::{self, Cell, Column, Give};
use super::render::{Look, Tone};
use super::started::Place;
use crate::daemon::RunDir;
use crate::node::name;

/// Collects, writes the archive, and prints what is in it.
///
/// # Errors
/// The archive cannot be written, and those of the writer.
pub(super) fn run(args: &BugreportArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let settings = Place::of_daemon(RunDir::new(&args.run_dir.run_dir), None).ok();
    let named = settings.and_then(|place| place.settings).map(|settings| settings.node_name);
    let node = named.or_else(|| name::of_host().ok()).unwrap_or_else(|| "node".to_owned());
    let folder = format!("kproxy-{node}-{stamp}");
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    let told = || format!("write {}; name another file with --output", path.display());
    // Nobody's file is overwritten, nor a link followed; addresses and names are not for all to read.
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&path).with_context(told)?;
    let parts = collect(args);
    let written = archive(&folder, &parts).and_then(|bytes| file.write_all(&bytes));
    if written.is_err() {
        // Half of an archive is none.
        fs::remove_file(&path).ok();
    }
    written.with_context(told)?;
    table::write(out, look, &columns(), false, &parts)?;
    let missing = parts.iter().filter(|part| part.content.is_err()).count();
    let there = parts.len() - missing;
    writeln!(out, "{}: {there} parts, {missing} could not be had", path.display())?;
    Ok(Exit::Fine)
}

fn columns() -> [Column<Part>; 3] {
    [
        Column::new("PART", |part: &Part| Cell::new(part.name)),
        Column::new("SIZE", |part: &Part| match &part.content {
            Ok(content) => Cell::new(bytes(content.len() as u64)),
            Err(_) => Cell::toned("-", Tone::Dim),
        })
        .number(),
        Column::new("WHAT", |part: &Part| match &part.content {
            Ok(_) => Cell::new(part.what),
            Err(why) => Cell::toned(why, Tone::Warn),
        })
        .give(Give::Last),
    ]
}
