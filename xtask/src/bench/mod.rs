//! `cargo xtask bench`: what a connection costs, directly and through each proxy.
//!
//! All variants run in one lab, one after the other and several times in turn, so that what
//! changes on the machine meanwhile meets all of them. Clients and servers share one CPU: no
//! figure depends on where the scheduler puts them.

mod plan;
mod report;

use std::{
    collections::BTreeMap,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kproxy_lab::{Lab, Load, Mode, Outcome, Probe, ProxyKind, ProxySpec, Source, Work, poll_until};

use crate::{prepare, say, setup::Scope, stats};
use plan::{PATHS, Path, Turn, Variant, WORKS};
use report::Row;

/// Options of `cargo xtask bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Print the figures as JSON and nothing else to standard output.
    #[arg(long)]
    json: bool,
    /// Fewer and shorter rounds: two to three minutes.
    #[arg(long)]
    quick: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    /// Loads of one figure, which is their lower quartile: many short ones, so that what else the
    /// machine does spoils some of them and not the figure.
    loads: usize,
    /// Time of one load.
    time: Duration,
}

/// How long a proxy may need until a path answers.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause before asking again.
const PAUSE: Duration = Duration::from_millis(100);

/// Measures and prints.
///
/// # Errors
/// When the lab cannot be made or a request fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::All)?;
    kproxy_lab::clean_on_signals()?;
    let effort = if options.quick {
        Effort { rounds: 5, loads: 10, time: Duration::from_millis(25) }
    } else {
        Effort { rounds: 9, loads: 20, time: Duration::from_millis(50) }
    };
    let cpu = available_parallelism().map_or(0, |cpus| cpus.get() - 1);

    say::heading("Making two nodes, a client and an API server");
    let lab = Lab::builder().nodes(2).pods(&["a", "b"]).build()?;
    lab.start_control_plane()?;
    for backend in plan::BACKENDS {
        let place = lab.place(backend)?;
        for (round, variant) in
            (0..effort.rounds).flat_map(|round| Variant::ALL.map(|variant| (round, variant)))
        {
            let port = Turn { variant, round }.port();
            place.serve_at(&place.addresses().both(), port, Some(cpu))?;
        }
    }
    let rows = measure(&lab, effort, cpu)?;

    if options.json {
        println!("{}", report::json(&rows).context("write the figures")?);
    } else {
        print!("{}", report::table(&rows));
    }
    Ok(())
}

/// All rounds.
fn measure(lab: &Lab, effort: Effort, cpu: usize) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = PATHS
        .iter()
        .flat_map(|path| {
            WORKS.map(|(_, work, unit)| Row {
                path: path.name,
                work,
                unit,
                figures: BTreeMap::new(),
            })
        })
        .collect();
    for round in 0..effort.rounds {
        say::heading(format!("Round {} of {}", round + 1, effort.rounds));
        for turn in 0..Variant::ALL.len() {
            // Each round begins with another variant: none is always the first.
            let variant = Variant::ALL[(turn + round) % Variant::ALL.len()];
            let turn = Turn { variant, round };
            let started = Instant::now();
            let figures = with_proxy(lab, turn, || figures(lab, turn, effort, cpu))
                .with_context(|| format!("measure {variant}"))?;
            for (row, figure) in rows.iter_mut().zip(figures) {
                row.figures.entry(variant).or_default().push(figure);
            }
            say::line(format!("{variant:<9} {}", say::duration(started.elapsed())));
        }
    }
    Ok(rows)
}

/// Runs a variant's proxies during `work`.
fn with_proxy<T>(lab: &Lab, turn: Turn, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let spec: ProxySpec = match turn.variant {
        Variant::Direct => return work(),
        Variant::Nftables => ProxyKind::KubeProxy(Mode::Nftables).into(),
        Variant::Iptables => ProxyKind::KubeProxy(Mode::Iptables).into(),
        Variant::Kproxy => ProxyKind::Kproxy(Source::Api).into(),
    };
    for object in plan::objects(lab, turn)? {
        lab.control()?.api().apply_object(object)?;
    }
    let proxies = lab.start_proxies(spec)?;
    let result = wait_for_paths(lab, turn).and_then(|()| work());
    for proxy in proxies {
        proxy.remove()?;
    }
    result
}

/// Waits until every path leads to its backend.
fn wait_for_paths(lab: &Lab, turn: Turn) -> Result<()> {
    for path in &PATHS {
        let address = path.address(lab, turn)?;
        let place = lab.place(path.from)?;
        for probe in [Probe::tcp(address), Probe::udp(address)] {
            let probe = probe.timeout(Duration::from_millis(500));
            let ask = || place.probe(probe.clone());
            let outcome = poll_until(PATIENCE, PAUSE, ask, Outcome::all_answered)?;
            if !outcome.all_answered() {
                bail!("{}: {address} from {}: {outcome}", path.name, path.from);
            }
        }
    }
    Ok(())
}

/// One figure a row.
fn figures(lab: &Lab, turn: Turn, effort: Effort, cpu: usize) -> Result<Vec<f64>> {
    let mut figures = Vec::new();
    for path in &PATHS {
        let to = path.address(lab, turn)?;
        for (work, name, _) in WORKS {
            let context = || format!("{name}, {}", path.name);
            figures.push(figure(lab, path, work, to, effort, cpu).with_context(context)?);
        }
    }
    Ok(figures)
}

fn figure(
    lab: &Lab,
    path: &Path,
    work: Work,
    to: std::net::SocketAddr,
    effort: Effort,
    cpu: usize,
) -> Result<f64> {
    let load =
        || plan::measure(lab, path, work, Load::new(work, to).duration(effort.time).cpu(cpu));
    let figures = (0..effort.loads).map(|_| load()).collect::<Result<Vec<_>>>()?;
    stats::quantile(&figures, 0.25).context("no loads")
}
