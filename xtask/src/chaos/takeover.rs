//! `cargo xtask chaos takeover`: from the real kube-proxy to kproxy and back, as docs/install.md says, while clients
//! connect and connections of either stand.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use kproxy_lab::{Mode, Proxy, kubernetes};

use super::{
    load::{self, Tally},
    stage::Stage,
};
use crate::{prepare, say, setup::Scope};

/// Options of `cargo xtask chaos takeover`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often kproxy comes and goes with each mode of kube-proxy.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Once: whether the command works, not whether kproxy holds.
    #[arg(long, conflicts_with = "times")]
    quick: bool,
    /// Mode of kube-proxy; without, both.
    #[arg(long, value_enum)]
    mode: Option<FromMode>,
    /// Release of kube-proxy; without, both.
    #[arg(long, value_enum)]
    release: Option<Release>,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Mode of the kube-proxy that kproxy takes over from.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum FromMode {
    Nftables,
    Iptables,
}

/// Release of the kube-proxy that kproxy takes over from.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Release {
    #[value(name = "1.36")]
    Lab,
    #[value(name = "1.37")]
    Next,
}

impl Release {
    /// The program, if it is not the lab's usual one.
    fn program(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Lab => Ok(None),
            Self::Next => kubernetes::next_kube_proxy().map(Some),
        }
    }
}

/// How long each proxy serves alone.
const ALONE: Duration = Duration::from_secs(3);

/// Comes and goes, prints the figures.
///
/// # Errors
/// When the lab cannot be made, a request failed, or a connection was lost.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::All)?;
    kproxy_lab::clean_on_signals()?;
    let times = if options.quick { 1 } else { options.times };
    let (mut faults, mut all) = (0, Tally::default());
    let modes: &[Mode] = match options.mode {
        None => &[Mode::Nftables, Mode::Iptables],
        Some(FromMode::Nftables) => &[Mode::Nftables],
        Some(FromMode::Iptables) => &[Mode::Iptables],
    };
    let releases =
        options.release.map_or_else(|| Release::value_variants().to_vec(), |one| vec![one]);
    for (release, mode) in
        releases.iter().flat_map(|release| modes.iter().map(move |mode| (*release, *mode)))
    {
        let name = release
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        say::heading(format!(
            "{times} times from kube-proxy {name} ({}) to kproxy and back",
            mode.name()
        ));
        let stage = Stage::with_kube_proxy(mode, release.program()?.as_deref())?;
        let started = Instant::now();
        let ((), tally) = load::under(&stage, |tally| {
            for number in 0..times {
                once(&stage, tally).with_context(|| format!("time {number}"))?;
            }
            Ok(())
        })?;
        faults += 2 * times as usize;
        say::line(format!("{tally} ({})", say::duration(started.elapsed())));
        all = all.and(tally);
    }
    println!("\n{all}");
    all.conclude(faults)
}

/// kproxy takes over from kube-proxy, and gives back.
fn once(stage: &Stage, tally: &mut Tally) -> Result<()> {
    let of_kube_proxy = load::stand(stage)?;
    let kproxies = stage.start_kproxy_beside()?;
    stop(stage.proxies())?;
    sleep(ALONE);
    let of_kproxy = load::stand(stage)?;
    sleep(ALONE);
    // Connections of before stand as long as kube-proxy's rules do, which nobody has removed.
    tally.end(of_kube_proxy)?;
    stage.proxies().iter().try_for_each(|proxy| proxy.start())?;
    stop(&kproxies)?;
    let draining = kproxies
        .iter()
        .map(|proxy| {
            let mut command = stage.kproxy(proxy.node(), "cleanup")?;
            command.args(["--drain", "--timeout", "5m"]).stdout(Stdio::piped());
            command.spawn().context("run kproxy cleanup --drain")
        })
        .collect::<Result<Vec<_>>>()?;
    sleep(ALONE);
    tally.end(of_kproxy)?;
    for cleanup in draining {
        let output = cleanup.wait_with_output().context("wait for kproxy cleanup --drain")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && text.contains("nothing is translated any more"),
            "kproxy cleanup --drain: {text}"
        );
    }
    Ok(())
}

fn stop(proxies: &[Arc<Proxy>]) -> Result<()> {
    // kube-proxy handles no signal: its status says nothing.
    proxies.iter().try_for_each(|proxy| proxy.stop().map(drop))
}
