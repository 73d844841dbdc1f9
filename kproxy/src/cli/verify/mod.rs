//! `kproxy verify`: what is planned against what the kernel holds, maps and programs.
//!
//! The plan is made here, from the source that the daemon uses, and not taken from the daemon: what that has wrong
//! is found, too. While a daemon is at work, only what differs at several looks counts.

pub(super) mod look;
pub(super) mod print;
mod source;

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ArgMatches;

use self::look::look;
use self::print::{Verified, print};
use self::source::Plan;
use super::args::VerifyArgs;
use super::exit::Exit;
use super::render::Look;
use super::started::{self, Place};
use super::status::probe;
use crate::daemon::{self, RunDir, Settings};
use crate::dataplane::read::Pins;
use crate::dataplane::verify::Finding;
use crate::node::netns;

/// How often is looked while a daemon may be in the middle of a change, and how long between.
const LOOKS: usize = 4;
const PAUSE: Duration = Duration::from_millis(300);

/// Compares, repairs if asked to, and prints.
///
/// # Errors
/// Maps, run folder or the source that was named cannot be read, a repair that fails, and those of the writer.
pub(super) fn run(
    args: VerifyArgs,
    matches: &ArgMatches,
    look: &Look,
    out: &mut dyn Write,
) -> Result<Exit> {
    let VerifyArgs { repair, maps_only, output, run } = args;
    let Place { bpffs_root, run_dir, settings } = started::place(run, matches)?;
    let pins = Pins::open(&bpffs_root)?;
    check_netns(&pins)?;
    let mut source = Plan::of(settings.filter(|_| !maps_only), &pins);
    let open = || Pins::open(&bpffs_root);
    let mut verified = Verified::new(&source, run_dir.running()?);
    verified.take(settled(&open, &mut source, verified.daemon.is_some())?);
    if repair && !verified.differences.is_empty() {
        let Plan::Read { settings, .. } = &source else {
            bail!(
                "{} to be repaired, and no plan to do it by: {}",
                print::count(verified.differences.len()),
                source.why_not()
            )
        };
        repair_with(&run_dir, (**settings).clone())?;
        verified.remaining = Some(settled(&open, &mut source, true)?.findings);
    }
    print(out, look, output.output, &verified)?;
    out.flush()?;
    match source {
        Plan::Failed(error) => bail!("nothing was compared with a plan: {error}"),
        _ if verified.in_order() => Ok(Exit::Fine),
        _ => Ok(Exit::No),
    }
}

/// What contradicts itself, without a plan.
///
/// # Errors
/// A map or the run folder cannot be read.
pub(super) fn maps_alone(pins: &Pins, run_dir: &RunDir) -> Result<Verified> {
    let mut source = Plan::None;
    let mut verified = Verified::new(&source, run_dir.running()?);
    verified.take(look(pins, &mut source)?);
    Ok(verified)
}

/// Device names and numbers mean something in one network namespace only.
fn check_netns(pins: &Pins) -> Result<()> {
    let (served, here) = (pins.config().host_netns, netns::cookie()?);
    if served != 0 && served != here {
        bail!(
            "kproxy serves the network namespace with cookie {served}, and this is the one with {here}: run \
             `kproxy verify` on the node itself (`nsenter --net=/proc/PID/ns/net`, with the daemon's pid)"
        );
    }
    Ok(())
}

/// What differs at every look.
fn settled<E>(
    open: &impl Fn() -> Result<Pins, E>,
    source: &mut Plan,
    changes: bool,
) -> Result<look::Seen>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut seen = look(&open()?, source)?;
    for _ in 1..LOOKS {
        if !changes || seen.findings.is_empty() {
            break;
        }
        match source {
            Plan::Read { fresh, .. } => fresh.follow(PAUSE)?,
            _ => sleep(PAUSE),
        }
        let again: Vec<Finding> = look(&open()?, source)?.findings;
        seen.findings.retain(|finding| again.contains(finding));
    }
    Ok(seen)
}

/// Has the kernel brought in step with the plan, by the daemon if it runs.
fn repair_with(run_dir: &RunDir, settings: Settings) -> Result<()> {
    if run_dir.running()?.is_none() {
        daemon::run_once(settings)?;
        return Ok(());
    }
    let mut said = Vec::new();
    match probe::repair(&run_dir.socket(), &mut said)? {
        Exit::Fine => Ok(()),
        Exit::No => {
            bail!("the daemon could not repair: {}", String::from_utf8_lossy(&said).trim_end())
        }
    }
}
