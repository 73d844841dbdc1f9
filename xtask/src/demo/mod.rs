//! `cargo xtask demo`: kproxy at work on two nodes, in namespaces of its own.
//!
//! What it shows goes to standard output, what it prepares to standard error.

mod ask;
mod objects;
mod scale;
mod title;

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use kproxy_lab::{Family, Lab, ProxyKind, Source};

use crate::{prepare, run::command_line, say, setup::Scope};
use title::title;

/// Options of `cargo xtask demo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Leave everything running at the end, and say how to enter and end it.
    #[arg(long)]
    keep: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Shows kproxy at work.
///
/// # Errors
/// When the lab cannot be made or something does not answer as it should.
pub(crate) fn run(options: &Options) -> Result<()> {
    prepare::programs(options.no_install, Scope::Manifests)?;
    kproxy_lab::clean_on_signals()?;
    say::heading("Making two nodes with two pods each, and a client");
    let lab = Lab::builder().nodes(2).pods(&["a", "b"]).build()?;
    objects::route_outside_addresses(&lab)?;
    objects::write(&lab)?;
    say::line("starting kproxy on both");
    lab.start_proxies(ProxyKind::Kproxy(Source::Manifests))?;

    places(&lab);
    objects::list(&lab);
    ask::table(&lab)?;
    scale::show(&lab)?;
    maps(&lab)?;
    next(lab, options.keep)
}

/// Who is there.
fn places(lab: &Lab) {
    title("Two nodes and a client outside, each in a network namespace");
    for node in lab.nodes() {
        let host = lab.node(&node);
        println!("{node:<8} {:<14} {}", host.ip(Family::V4), host.ip(Family::V6));
        for pod in ["a", "b"] {
            let place = lab.pod(&node, pod);
            let (v4, v6) = (place.ip(Family::V4), place.ip(Family::V6));
            println!("  {:<6} {v4:<14} {v6}", place.name());
        }
    }
    let client = lab.client();
    println!("{:<8} {:<14} {}", "client", client.ip(Family::V4), client.ip(Family::V6));
}

/// What kproxy says about a node's maps.
fn maps(lab: &Lab) -> Result<()> {
    title("The maps of n1: `kproxy dump services` and `kproxy status`");
    show(lab.kproxy_command("n1", "dump")?.arg("services"))?;
    println!();
    show(&mut lab.kproxy_command("n1", "status")?)
}

fn show(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let output = command.output().with_context(|| format!("run `{line}`"))?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    // 1: something is not in order, and the output says what.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn next(lab: Lab, keep: bool) -> Result<()> {
    title("Try next");
    if !keep {
        println!("cargo xtask demo --keep   leave this running and look around");
        println!("cargo xtask parity        the same cases on kproxy and on kube-proxy");
        println!("cargo xtask bench --quick what a connection costs with each of them");
        println!("docs/install.md           on your own machine or cluster");
        return Ok(());
    }
    let manifests = lab.manifests();
    let enter: Vec<(String, String)> = lab
        .place_names()
        .into_iter()
        .filter(|name| name != "router")
        .map(|name| {
            let netns = lab.place(&name).map(|place| place.netns().display().to_string());
            Ok((name, netns?))
        })
        .collect::<Result<_>>()?;
    let id = lab.keep()?;
    println!("Enter a place and use its sockets through kproxy:");
    for (name, _) in &enter {
        println!("  target/debug/kproxy-lab enter {id} {name}");
    }
    println!("\nOnly its network, for tcpdump, ip or nft:");
    for (name, netns) in &enter {
        println!("  nsenter --net={netns}   # {name}");
    }
    println!("\nChange a Service and watch:");
    println!("  $EDITOR {}/{}", manifests.display(), objects::FILE);
    println!("\nEnd it:\n  target/debug/kproxy-lab clean {id}");
    Ok(())
}
