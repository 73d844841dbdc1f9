//! `cargo xtask chaos restart`: the daemons of both nodes are killed and started again, over and over, while
//! clients connect, connections stand and Services change.

use std::{
    fmt,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kproxy_lab::Proxy;

use super::{load, stage::Stage};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos restart`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often the daemons are killed and started: on two nodes, and every fourth time twice, so that
    /// 400 times are a thousand kills.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Twelve times: whether the command works, not whether kproxy holds.
    #[arg(long, conflicts_with = "times")]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// How often is said how far it is.
const SAY: Duration = Duration::from_secs(60);
/// Longest time after which a daemon that starts is killed again.
const STARTING: u32 = 400;

/// What happens around a kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Nothing changes.
    Unchanged,
    /// A Service comes or goes while the daemons are dead.
    ChangedWhileDead,
    /// A Service comes or goes, and the daemons are killed at once, in the middle of it or before.
    KilledWhileChanging,
    /// The daemons are killed once more while they start.
    KilledWhileStarting,
}

impl Turn {
    const ALL: [Self; 4] = [
        Self::Unchanged,
        Self::ChangedWhileDead,
        Self::KilledWhileChanging,
        Self::KilledWhileStarting,
    ];
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "nothing changed",
            Self::ChangedWhileDead => "a Service changed while they were dead",
            Self::KilledWhileChanging => "killed while a Service changed",
            Self::KilledWhileStarting => "killed while they started",
        })
    }
}

/// Kills and starts, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, a connection was lost, or a daemon did not do what it should.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::Manifests)?;
    kproxy_lab::clean_on_signals()?;
    let times = if options.quick { 12 } else { options.times };
    let stage = Stage::new(&[])?;
    say::heading(format!("{times} times kill -9 and start, on both nodes"));
    let standing = load::stand(&stage)?;
    let started = Instant::now();
    let (kills, mut tally) = load::under(&stage, |_| {
        let (mut kills, mut said) = (0, Instant::now());
        for number in 0..times {
            let turn = Turn::ALL[number as usize % Turn::ALL.len()];
            kills +=
                once(&stage, turn, number).with_context(|| format!("time {number}, {turn}"))?;
            if said.elapsed() >= SAY {
                let took = say::duration(started.elapsed());
                say::line(format!("{} of {times}, {took}", number + 1));
                said = Instant::now();
            }
        }
        Ok(kills)
    })?;
    tally.end(standing)?;
    println!("\n{kills} kills in {}: {tally}", say::duration(started.elapsed()));
    tally.conclude(kills)
}

/// Kills the daemons and starts them. How many kills there were.
fn once(stage: &Stage, turn: Turn, number: u32) -> Result<usize> {
    let proxies = stage.proxies();
    let all = |act: &dyn Fn(&Proxy) -> Result<()>| proxies.iter().try_for_each(|proxy| act(proxy));
    let mut kills = proxies.len();
    if turn == Turn::KilledWhileChanging {
        stage.toggle_extra()?;
        // The daemon looks at a file some milliseconds after it has changed.
        sleep(Duration::from_millis(u64::from(load::spread(number, 150))));
    }
    all(&Proxy::kill)?;
    if turn == Turn::ChangedWhileDead {
        stage.toggle_extra()?;
    }
    if turn == Turn::KilledWhileStarting {
        all(&Proxy::launch)?;
        sleep(Duration::from_millis(u64::from(load::spread(number, STARTING))));
        all(&Proxy::kill)?;
        kills += proxies.len();
    }
    all(&Proxy::launch)?;
    all(&Proxy::wait_ready)?;
    if turn == Turn::Unchanged {
        for proxy in proxies {
            let log = proxy.log();
            ensure!(log.contains("writes=0"), "{} has written: {log}", proxy.node());
        }
    }
    for proxy in proxies {
        let frontends = stdout(stage.kproxy(proxy.node(), "dump")?.arg("frontends"))?;
        let (is_there, wanted) = (frontends.contains("default/extra"), stage.has_extra());
        ensure!(is_there == wanted, "extra is there: {is_there}, wanted: {wanted}\n{frontends}");
        // A plan made anew, not the daemon's.
        stdout(&mut stage.kproxy(proxy.node(), "verify")?)?;
    }
    Ok(kills)
}

fn stdout(command: &mut Command) -> Result<String> {
    let output = command.output().context("run kproxy")?;
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{}{}", said[0], said[1]);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
