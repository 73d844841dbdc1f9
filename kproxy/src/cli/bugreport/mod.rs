//! `kproxy bugreport`: one archive with what somebody needs to see who was not there.
//!
//! Files that hold secrets (kubeconfig, tokens, keys, the environment) are never opened, and what looks like a
//! secret all the same is taken out of every part ([`scrub`]). A part that cannot be had is a line of the summary.

mod archive;
mod daemon;
mod node;
mod parts;
mod scrub;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;

use self::archive::archive;
use self::parts::{Part, collect, columns};
use super::args::BugreportArgs;
use super::exit::Exit;
use super::render::{Look, Tone, prose, table};
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
    let (there, missing): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|part| part.content.is_ok());
    table::write(out, look, &columns(), false, &there)?;
    let count = missing.len();
    for (why, names) in by_reason(missing) {
        let text = format!("{}: {why}", names.join(", "));
        prose::hanging(out, look, &look.paint(Tone::Warn, "- "), 2, &text)?;
    }
    writeln!(out, "{}: {} parts, {count} could not be had", path.display(), there.len())?;
    Ok(Exit::Fine)
}

/// What could not be had, each reason once.
fn by_reason(missing: Vec<Part>) -> BTreeMap<String, Vec<&'static str>> {
    let mut reasons: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for Part { name, content, .. } in missing {
        if let Err(why) = content {
            reasons.entry(why).or_default().push(name);
        }
    }
    reasons
}
