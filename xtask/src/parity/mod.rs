//! `cargo xtask parity`: the same cases on kproxy and on the real kube-proxy.
//!
//! Both see the same objects of the same API server in the same lab. What kproxy shows must be what
//! kube-proxy shows, or a difference that `docs/improvements.md` explains. Everything about the
//! cases is data in `cases/`: [`read`] reads it, [`play`] plays it on a [`stage`], [`look`],
//! [`flow`], [`metrics`] and [`words`] put what is seen into words, [`report`] and [`page`] compare.

mod case;
mod check;
mod expected;
mod flow;
mod group;
mod ids;
mod improvements;
mod look;
mod metrics;
mod names;
mod network;
mod objects;
mod over;
mod page;
mod play;
mod read;
mod report;
mod scrape;
mod settings;
mod sight;
mod stage;
mod step;
mod step_flow;
mod words;
mod world;

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, bail};
use kproxy_lab::Network;

use crate::{prepare, say, setup::Scope, workspace};
use case::Case;
pub(crate) use check::check;
use expected::Who;
use group::Sights;
use report::{Played, Row};

/// Options of `cargo xtask parity`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Print the results as JSON and nothing else to standard output.
    #[arg(long)]
    json: bool,
    /// Write docs/parity.md from the results.
    #[arg(long, conflicts_with_all = ["id", "network"])]
    write_docs: bool,
    /// How the lab's nodes and pods are connected.
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
    /// Play only the cases of these ids, or of these areas (`VER`).
    id: Vec<String>,
}

/// Plays the cases and compares.
///
/// # Errors
/// When the lab cannot be made, or a difference is not a documented improvement.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (ids, all, settings) = (ids::read()?, read::all()?, settings::read()?);
    ids::check(&ids, &all)?;
    let without = ids::without_case(&ids, &all);
    let improvements = improvements::read()?;
    let wanted = |id: &str| {
        let area = id.split('-').next();
        let named = |name: &String| name == id || Some(name.as_str()) == area;
        options.id.is_empty() || options.id.iter().any(named)
    };
    let cases: Vec<&Case> = all.iter().filter(|case| case.ids().any(wanted)).collect();
    if cases.is_empty() {
        bail!("no case is for {}", options.id.join(" or "));
    }
    prepare::programs(options.no_install, Scope::All)?;
    kproxy_lab::clean_on_signals()?;

    let played = play(options.network, &cases, &settings)?;
    let rows: Vec<Row> = ids
        .iter()
        .filter(|id| wanted(&id.id))
        .filter(|id| match network::left_out(options.network, &id.id) {
            Some(why) => {
                say::line(format!("{} is left out on {}: {why}", id.id, options.network));
                false
            }
            None => true,
        })
        .filter_map(|id| {
            let of = ids::cases_of(&id.id, &all);
            let of: Vec<_> =
                of.filter_map(|case| Some((case, played.get(case.name.as_str())?))).collect();
            (!of.is_empty()).then(|| Row::new(id, &of, &improvements))
        })
        .collect();
    if options.json {
        println!("{}", report::json(&rows, &without).context("write the results")?);
    } else {
        print!("{}", report::table(&rows, without.len()));
    }
    if options.write_docs {
        let path = workspace::root().join(page::PATH);
        fs::write(&path, page::of_rows(&rows, &ids))
            .with_context(|| format!("write {}", path.display()))?;
    }
    let differing: Vec<&str> =
        rows.iter().filter(|row| row.differs()).map(|row| row.id.as_str()).collect();
    if !differing.is_empty() {
        bail!("differences that docs/improvements.md does not explain: {}", differing.join(", "));
    }
    Ok(())
}

/// Plays the cases on every proxy, those of the same settings together; what was seen, by case.
fn play<'a>(
    network: Network,
    cases: &[&'a Case],
    settings: &settings::All,
) -> Result<BTreeMap<&'a str, Played>> {
    say::heading(format!("Making two nodes ({network}), a client and an API server"));
    let lab = world::make_lab(network)?;
    let mut played = BTreeMap::<&str, Played>::new();
    for (name, with) in settings {
        for who in [Who::Kproxy, Who::Nftables, Who::Iptables] {
            let is_played = |case: &&&Case| {
                case.settings == *name && (who != Who::Iptables || case.is_for_iptables())
            };
            let of_settings: Vec<&Case> = cases.iter().filter(is_played).copied().collect();
            if of_settings.is_empty() {
                continue;
            }
            say::heading(format!("{} cases on {who}, settings: {name}", of_settings.len()));
            let sights = group::play(&lab, who, with, &of_settings)?;
            file(&mut played, cases, who, sights);
        }
    }
    Ok(played)
}

fn file<'a>(
    played: &mut BTreeMap<&'a str, Played>,
    cases: &[&'a Case],
    who: Who,
    mut sights: Sights,
) {
    for case in cases {
        let Some(seen) = sights.remove(&case.name) else { continue };
        let entry = played.entry(&case.name).or_default();
        match who {
            Who::Kproxy => entry.kproxy = seen,
            Who::Nftables => entry.nftables = seen,
            Who::Iptables => entry.iptables = seen,
        }
    }
}
