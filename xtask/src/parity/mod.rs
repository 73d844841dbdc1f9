//! `cargo xtask parity`: the same cases on kproxy and on the real kube-proxy.
//!
//! Both see the same objects of the same API server in the same lab. What kproxy shows must be what
//! kube-proxy shows, or a difference that `docs/improvements.md` explains.

mod case;
mod improvements;
mod play;
mod report;
mod seen;

use anyhow::{Context as _, Result, bail};
use kproxy_lab::{Lab, Mode, ProxyKind, Source};

use crate::{prepare, say, setup::Scope};
use case::Case;
use play::{Stage, Who};
use report::Row;

/// Options of `cargo xtask parity`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Print the results as JSON and nothing else to standard output.
    #[arg(long)]
    json: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
    /// Play only these cases.
    case: Vec<String>,
}

/// Plays the cases and compares.
///
/// # Errors
/// When the lab cannot be made, or a difference is not a documented improvement.
pub(crate) fn run(options: &Options) -> Result<()> {
    let all = case::all()?;
    let without = case::ids_without_case(&all);
    let improvements = improvements::read()?;
    let cases: Vec<&Case> = all
        .iter()
        .filter(|case| options.case.is_empty() || options.case.contains(&case.id))
        .collect();
    if cases.is_empty() {
        bail!("no case is called {}", options.case.join(" or "));
    }
    prepare::programs(options.no_install, Scope::All)?;
    kproxy_lab::clean_on_signals()?;

    say::heading("Making two nodes, a client and an API server");
    let lab = Lab::builder().nodes(2).pods(&["a", "b"]).build()?;
    lab.start_control_plane()?;
    let kproxy = play(&lab, Who::Kproxy, &cases)?;
    let kube_proxy = play(&lab, Who::KubeProxy, &cases)?;

    let rows: Vec<Row> = cases
        .iter()
        .zip(kproxy.into_iter().zip(kube_proxy))
        .map(|(case, (ours, theirs))| Row::new(case, ours, theirs, &improvements))
        .collect();
    if options.json {
        println!("{}", report::json(&rows, &without).context("write the results")?);
    } else {
        print!("{}", report::table(&rows, without.len()));
    }
    let differing: Vec<&str> = rows.iter().filter(|row| row.differs()).map(Row::id).collect();
    if !differing.is_empty() {
        bail!("differences that docs/improvements.md does not explain: {}", differing.join(", "));
    }
    Ok(())
}

/// Plays all cases on one proxy; what was seen, case by case.
fn play(lab: &Lab, who: Who, cases: &[&Case]) -> Result<Vec<Vec<play::Sight>>> {
    let kind = match who {
        Who::Kproxy => ProxyKind::Kproxy(Source::Api),
        Who::KubeProxy => ProxyKind::KubeProxy(Mode::Nftables),
    };
    say::heading(format!("{} cases on {who}", cases.len()));
    let proxies = lab.start_proxies(kind)?;
    let mut all = Vec::new();
    for case in cases {
        let sights = Stage::new(lab, who)?.play(case).with_context(|| case.id.clone())?;
        let good = sights.iter().filter(|sight| sight.is_expected()).count();
        say::line(format!("{:<7} {good} of {} as expected", case.id, sights.len()));
        all.push(sights);
    }
    for proxy in proxies {
        proxy.remove()?;
    }
    Ok(all)
}
