//! What goes into the archive.

use anyhow::Result;

use super::scrub::scrub;
use super::{daemon, node};
use crate::cli::args::BugreportArgs;
use crate::cli::dump::columns::bytes;
use crate::cli::render::table::{Cell, Column, Give};
use crate::cli::render::{Tone, json};
use crate::cli::started::Place;
use crate::cli::values::BPFFS_ROOT;
use crate::cli::version::Version;
use crate::daemon::RunDir;
use crate::dataplane::read::Pins;
use crate::errors::with_causes;

/// One file of the archive.
pub(super) struct Part {
    /// Name of the file.
    pub name: &'static str,
    /// What it tells.
    pub what: &'static str,
    /// Its text without secrets, or why there is none.
    pub content: Result<String, String>,
}

impl Part {
    fn of(name: &'static str, what: &'static str, content: Result<String>) -> Self {
        let content = content.map(|text| scrub(&text));
        let content = content.map_err(|error| scrub(&with_causes(error.as_ref())));
        Self { name, what, content }
    }
}

/// Collects everything, each part by itself.
pub(super) fn collect(args: &BugreportArgs) -> Vec<Part> {
    let run_dir = RunDir::new(&args.run_dir.run_dir);
    let place = Place::of_daemon(run_dir.clone(), args.bpffs_root.clone());
    let typed = || args.bpffs_root.clone().unwrap_or_else(|| BPFFS_ROOT.into());
    let bpffs_root = place.as_ref().map_or_else(|_| typed(), |place| place.bpffs_root.clone());
    let pins = || Pins::open(&bpffs_root).map_err(anyhow::Error::from);
    let settings = || match &place {
        Ok(place) => Ok(place.settings.as_ref()),
        Err(error) => anyhow::bail!("{}", with_causes(error.as_ref())),
    };
    vec![
        Part::of(
            "version.json",
            "version of this binary",
            json::text(&Version::THIS).map_err(Into::into),
        ),
        Part::of("status.json", "kproxy status", pins().and_then(|p| daemon::status(&p, &run_dir))),
        Part::of(
            "verify.json",
            "contradictions in the maps",
            pins().and_then(|p| daemon::verify(&p, &run_dir)),
        ),
        Part::of("dump.json", "kproxy dump all", pins().and_then(|p| daemon::dump(&p))),
        Part::of(
            "programs.json",
            "programs and where they are attached",
            pins().and_then(|p| daemon::programs(&p)),
        ),
        Part::of(
            "config.json",
            "settings of the daemon, no file that they name",
            daemon::config(&run_dir),
        ),
        Part::of("process.txt", "the daemon's process", daemon::process(&run_dir)),
        Part::of("metrics.txt", "metrics", settings().and_then(|s| daemon::metrics(s))),
        Part::of("logs.txt", "kproxy's own log, from journald", node::logs()),
        Part::of("kernel.txt", "kernel, BTF, limits", node::kernel()),
        Part::of("sysctls.txt", "settings of the kernel that matter here", node::sysctls()),
        Part::of("mounts.txt", "BPF and cgroup file systems", node::mounts()),
        Part::of(
            "devices.txt",
            "devices and addresses as kproxy sees them",
            settings().and_then(|s| node::devices(s, pins().ok().as_ref())),
        ),
        Part::of("network.txt", "links, addresses, routes and rules", node::network()),
        Part::of("nftables.txt", "tables of nftables, not their rules", node::tables()),
    ]
}

/// The summary.
pub(super) fn columns() -> [Column<Part>; 3] {
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
