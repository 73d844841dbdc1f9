//! `kproxy status`: is kproxy in order on this node, and if not, why.

pub(super) mod attached;
pub(super) mod facts;
pub(super) mod opt_out;
pub(super) mod print;
pub(super) mod probe;
pub(super) mod source_nat;
pub(super) mod timeouts;

use std::io::Write;

use anyhow::Result;

use self::facts::{Daemon, Drops, Fill, Status, Totals};
use self::opt_out::OptOut;
use self::print::print;
use self::source_nat::SourceNat;
use super::args::{Format, StatusArgs};
use super::exit::Exit;
use super::render::{Look, json, yaml};
use super::version::Version;
use crate::daemon::RunDir;
use crate::dataplane::read::Pins;

/// Finds out and prints.
///
/// # Errors
/// Maps or run folder that cannot be read, and those of the writer.
pub(super) fn run(args: StatusArgs, look: &Look, out: &mut dyn Write) -> Result<Exit> {
    let StatusArgs { ready, live, output, pins, run_dir } = args;
    let run_dir = RunDir::new(run_dir.run_dir);
    if ready || live {
        return probe::run(&run_dir.socket(), if ready { "/readyz" } else { "/livez" }, out);
    }
    let status = collect(&Pins::open(&pins.bpffs_root)?, &run_dir)?;
    match output.output {
        Format::Table | Format::Wide => print(out, look, &status)?,
        Format::Json => json::write(out, &status)?,
        Format::Yaml => yaml::write(out, &status)?,
    }
    Ok(if status.in_order { Exit::Fine } else { Exit::No })
}

pub(in crate::cli) fn collect(pins: &Pins, run_dir: &RunDir) -> Result<Status> {
    let pid = run_dir.running()?;
    let (cgroup, devices) = attached::of(pins.links()?, pins.config().flags);
    let services = pins.services()?;
    let limits = run_dir.map_limits()?;
    let mut status = Status {
        in_order: true,
        reasons: Vec::new(),
        version: Version::THIS,
        pins: pins.dirs().version.display().to_string(),
        other_versions: pins.other_versions(),
        daemon: Daemon { running: pid.is_some(), pid },
        cgroup,
        devices,
        opt_out: OptOut::of(pins, run_dir)?,
        source_nat: SourceNat::of(&pins.config(), pins.port_pool()?),
        timeouts: timeouts::of(pins, run_dir)?,
        node_addresses: pins.node_addresses()?.into_iter().collect(),
        totals: Totals {
            service_ports: services.len(),
            frontends: pins.frontends()?.len(),
            backends: services.iter().map(|row| u64::from(row.cluster.backends)).sum(),
            flows: pins.flows()?.len(),
        },
        maps: pins
            .usage()?
            .into_iter()
            .map(|row| Fill::new(row, limits.get(row.map).map(|limit| u64::from(*limit))))
            .collect(),
        drops: Drops::by_reason(&pins.drops()?),
        problems: run_dir.problems()?,
    };
    status.judge();
    Ok(status)
}
