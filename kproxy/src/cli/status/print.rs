//! `kproxy status` for people.

use std::io::{self, Write};

use super::attached::Device;
use super::facts::{Drops, Fill, Status};
use super::timeouts::Timeout;
use crate::cli::render::prose::count;
use crate::cli::render::table::{Cell, Column};
use crate::cli::render::{Look, Tone, prose, table};

/// Column where the facts begin.
const FACTS: usize = 12;

/// Prints the verdict, then the facts, then what is wrong.
///
/// # Errors
/// Only those of the writer.
pub(crate) fn print(out: &mut dyn Write, look: &Look, status: &Status) -> io::Result<()> {
    let verdict = if status.in_order {
        look.paint(Tone::Good, "in order")
    } else {
        look.paint(Tone::Bad, "not in order")
    };
    let version = status.version;
    writeln!(
        out,
        "kproxy {} (map layout version {}): {verdict}",
        version.version, version.abi_version
    )?;
    for reason in &status.reasons {
        bullet(out, look, reason)?;
    }
    writeln!(out)?;
    facts(out, look, status)?;
    maps(out, look, &status.maps)?;
    drops(out, look, &status.drops)?;
    if !status.problems.is_empty() {
        heading(out, look, "Problems")?;
        for problem in &status.problems {
            bullet(out, look, &problem.to_string())?;
        }
    }
    Ok(())
}

fn facts(out: &mut dyn Write, look: &Look, status: &Status) -> io::Result<()> {
    match status.daemon.pid {
        Some(pid) => fact(out, look, "Daemon", &format!("running, pid {pid}"))?,
        None => fact(out, look, "Daemon", "not running")?,
    }
    fact(out, look, "Pins", &status.pins)?;
    let cgroup = &status.cgroup;
    let place = match (&cgroup.path, cgroup.id) {
        (Some(path), _) => format!(" on {}", path.display()),
        (None, Some(id)) => format!(" on the cgroup with id {id}"),
        (None, None) => String::new(),
    };
    let (have, all) = (cgroup.attached.len(), cgroup.attached.len() + cgroup.missing.len());
    let programs = if cgroup.unused && have == 0 {
        "no program: packets of sockets are translated (--socket-lb none)".to_owned()
    } else {
        format!("{have} of {all} programs{place}")
    };
    fact(out, look, "Cgroup", &programs)?;
    let (pods, uplinks): (Vec<_>, Vec<_>) = status.devices.iter().partition(|d| d.leads_to_pod());
    if uplinks.is_empty() {
        fact(
            out,
            look,
            "Devices",
            "no link (before Linux 6.6 the programs are filters: see `tc filter show`)",
        )?;
    }
    for (device, title) in
        uplinks.iter().zip(std::iter::once("Devices").chain(std::iter::repeat("")))
    {
        fact(out, look, title, &device_text(device))?;
    }
    if !pods.is_empty() {
        fact(out, look, "Pods", &count(pods.len() as u64, "device"))?;
        for device in pods.iter().filter(|device| !device.missing.is_empty()) {
            fact(out, look, "", &device_text(device))?;
        }
    }
    if let Some(opt_out) = &status.opt_out {
        fact(out, look, "Opted out", &opt_out.text())?;
    }
    fact(out, look, "Source NAT", &status.source_nat.text())?;
    if let Some(pool) = status.source_nat.pool_text() {
        fact(out, look, "Ports", &pool)?;
    }
    if !status.timeouts.is_empty() {
        let all: Vec<_> = status.timeouts.iter().map(Timeout::text).collect();
        fact(out, look, "Timeouts", &all.join(", "))?;
    }
    if !status.node_addresses.is_empty() {
        let all: Vec<_> = status.node_addresses.iter().map(ToString::to_string).collect();
        fact(out, look, "Addresses", &all.join(", "))?;
    }
    let totals = status.totals;
    let served = format!(
        "{}, {}, {}, {}",
        count(totals.service_ports as u64, "service port"),
        count(totals.frontends as u64, "frontend"),
        count(totals.backends, "backend"),
        count(totals.flows as u64, "flow"),
    );
    fact(out, look, "Serving", &served)
}

fn device_text(device: &Device) -> String {
    let mut text = format!("{}: {}", device.name, device.attached.join(", "));
    if !device.missing.is_empty() {
        text.push_str("; missing ");
        text.push_str(&device.missing.join(", "));
    }
    text
}

fn maps(out: &mut dyn Write, look: &Look, maps: &[Fill]) -> io::Result<()> {
    const COLUMNS: &[Column<Fill>] = &[
        Column::new("MAP", |fill: &Fill| Cell::new(fill.usage.map)),
        Column::new("USED", |fill: &Fill| Cell::new(fill.usage.used)).number(),
        Column::new("CAPACITY", |fill: &Fill| Cell::new(fill.usage.capacity)).number(),
        Column::new("FULL", |fill: &Fill| {
            let tone = if fill.is_nearly_full() { Tone::Bad } else { Tone::Plain };
            Cell::toned(format!("{:.1}%", fill.percent), tone)
        })
        .number(),
        Column::new("GROWS TO", |fill: &Fill| {
            Cell::new(fill.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()))
        })
        .number(),
    ];
    writeln!(out)?;
    table::write(out, look, COLUMNS, false, maps)
}

fn drops(out: &mut dyn Write, look: &Look, drops: &[Drops]) -> io::Result<()> {
    if drops.is_empty() {
        writeln!(out)?;
        return writeln!(out, "Nothing refused or dropped since the maps were made.");
    }
    heading(out, look, "Refused or dropped since the maps were made")?;
    for Drops { reason, count, help } in drops {
        writeln!(out, "  {} {count}", look.paint(Tone::Bad, reason))?;
        prose::write(out, look, 4, help)?;
    }
    Ok(())
}

fn heading(out: &mut dyn Write, look: &Look, text: &str) -> io::Result<()> {
    writeln!(out, "\n{}", look.paint(Tone::Title, text))
}

/// A title and text beside it, whose further lines begin where the first does.
fn fact(out: &mut dyn Write, look: &Look, title: &str, text: &str) -> io::Result<()> {
    let lead = look.paint(Tone::Title, format_args!("{title:FACTS$}"));
    prose::hanging(out, look, &lead, FACTS, text)
}

fn bullet(out: &mut dyn Write, look: &Look, text: &str) -> io::Result<()> {
    prose::hanging(out, look, "- ", 2, text)
}
