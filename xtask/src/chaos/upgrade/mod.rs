//! `cargo xtask chaos upgrade`: from one build of kproxy to another on both nodes, of the same layout of the maps and
//! of another one, and back, while clients connect and connections stand.

mod builds;

use std::{
    fmt,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kproxy_lab::Proxy;

use self::builds::{Build, Builds};
use super::{
    load::{self, Tally},
    stage::Stage,
};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos upgrade`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often every change is made.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Four times, and without an optimized build: whether the command works, not whether kproxy holds.
    #[arg(long, conflicts_with = "times")]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// What a daemon that takes over says on its way; it is killed then, or up to so many milliseconds later.
const ON_THE_WAY: [&str; 4] =
    ["going on with the maps", "map=\"KP_FLOWS\"", "metrics are served", "took over the flows"];
const LATER: u32 = 100;
/// How long each build serves at least.
const ALONE: Duration = Duration::from_secs(1);

/// From the build that is at work to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// The old daemon ends, the new one starts.
    To(Build),
    /// The new daemon is killed while it takes over, and started again.
    KilledOnTheWayTo(Build),
    /// The new daemon is killed while it takes over, and the old one is started again.
    BackFromTheWayTo(Build),
    /// The new programs do not load, and the old daemon is started again.
    Refused,
}

impl Change {
    const ALL: [Self; 8] = [
        Self::To(Build::Another),
        Self::To(Build::This),
        Self::To(Build::OtherLayout),
        Self::To(Build::This),
        Self::KilledOnTheWayTo(Build::OtherLayout),
        Self::KilledOnTheWayTo(Build::This),
        Self::Refused,
        Self::BackFromTheWayTo(Build::OtherLayout),
    ];
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(build) => write!(f, "to {build}"),
            Self::KilledOnTheWayTo(build) => write!(f, "to {build}, killed on the way"),
            Self::BackFromTheWayTo(build) => write!(f, "killed on the way to {build}, and back"),
            Self::Refused => f.write_str("to programs that the kernel refuses, and back"),
        }
    }
}

/// Changes builds, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, a connection was lost, or a daemon did not do what it should.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::Manifests)?;
    kproxy_lab::clean_on_signals()?;
    let times = if options.quick { 4 } else { options.times };
    say::heading("Building what is changed to");
    let builds = Builds::make(!options.quick)?;
    let changes = if options.quick { &Change::ALL[2..] } else { &Change::ALL[..] };
    let stage = Stage::with_build(builds.current())?;
    say::heading(format!("{times} times {} changes of the build, on both nodes", changes.len()));
    let started = Instant::now();
    // These live through all of it.
    let standing = load::stand(&stage)?;
    let (faults, mut tally) = load::under(&stage, |tally| {
        let mut faults = 0;
        for number in 0..times {
            for change in changes {
                faults += once(&stage, &builds, *change, number, tally)
                    .with_context(|| format!("time {number}, {change}"))?;
            }
            let took = say::duration(started.elapsed());
            let lost = tally.lost();
            say::line(format!("{} of {times}, {took}, {lost} lost so far", number + 1));
        }
        Ok(faults)
    })?;
    tally.end(standing)?;
    println!("\n{faults} changes in {}: {tally}", say::duration(started.elapsed()));
    tally.conclude(faults)
}

/// Makes one change on all nodes, with connections of before that are ended after it. How many daemons were started
/// or killed.
fn once(
    stage: &Stage,
    builds: &Builds,
    change: Change,
    number: u32,
    tally: &mut Tally,
) -> Result<usize> {
    let proxies = stage.proxies();
    let all = |act: &dyn Fn(&Proxy) -> Result<()>| proxies.iter().try_for_each(|proxy| act(proxy));
    let before = load::stand(stage)?;
    sleep(ALONE);
    let old = builds.chosen();
    all(&|proxy| proxy.stop().map(drop))?;
    let mut faults = proxies.len();
    let mut now = old;
    match change {
        Change::To(build) => now = build,
        Change::KilledOnTheWayTo(build) | Change::BackFromTheWayTo(build) => {
            builds.choose(build)?;
            all(&Proxy::launch)?;
            let said = ON_THE_WAY[number as usize % ON_THE_WAY.len()];
            for proxy in proxies {
                proxy.wait_for_log(said)?;
                sleep(Duration::from_millis(u64::from(load::spread(number, LATER))));
                proxy.kill()?;
            }
            faults += proxies.len();
            if change == Change::KilledOnTheWayTo(build) {
                now = build;
            }
        }
        Change::Refused => {
            builds.choose(Build::Refused)?;
            for proxy in proxies {
                let Err(error) = proxy.start() else {
                    bail!("{}: the kernel takes the programs that it should refuse", proxy.node());
                };
                let said = format!("{error:#}");
                ensure!(said.contains("the kernel refused the BPF program kp_"), "{said}");
            }
            faults += proxies.len();
        }
    }
    builds.choose(now)?;
    all(&Proxy::launch)?;
    all(&Proxy::wait_ready)?;
    for proxy in proxies {
        let status = stage.kproxy_of(builds.current(), proxy.node(), "status")?;
        let status = stdout(status)?;
        ensure!(!status.contains("programs of layout version"), "{}: {status}", proxy.node());
    }
    tally.end(before)?;
    Ok(faults)
}

fn stdout(mut command: Command) -> Result<String> {
    let output = command.output().context("run kproxy")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
