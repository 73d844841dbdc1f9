//! `kproxy cleanup --kube-proxy`: takes kube-proxy's rules off this node, once kproxy serves in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tracing::debug;

use super::wait::{connections, wait_for_end};
use crate::cli::exit::Exit;
use crate::cli::render::note;
use crate::dataplane::read::Pins;
use crate::model::Family;
use crate::node::ctnetlink::{Conntrack, Tracked};
use crate::node::kube_proxy::{Rules, Running, running};

/// What was typed.
pub(super) struct How<'a> {
    pub force: bool,
    pub dry_run: bool,
    /// Wait for open connections, at most so long where a time is given.
    pub drain: Option<Option<Duration>>,
    pub bpffs_root: &'a Path,
}

/// Removes the rules and prints what it removed.
///
/// # Errors
/// What speaks against it (unless forced), what could not be looked at or removed, and those of the writer.
pub(super) fn run(how: &How<'_>, out: &mut dyn Write) -> Result<Exit> {
    let (rules, mut failures) = Rules::find();
    let there = rules.lines();
    let pins = Pins::open(how.bpffs_root);
    // Known by the frontends that were dialled; all that are translated, where those are not known.
    let frontends = pins.as_ref().ok().map(Frontends::of).transpose()?;
    let open = || open(frontends.as_ref());
    if how.dry_run {
        for what in &there {
            writeln!(out, "would remove {what}")?;
        }
    } else if !there.is_empty() {
        if !how.force {
            let serves =
                pins.as_ref().is_ok_and(|pins| pins.links().is_ok_and(|all| !all.is_empty()));
            speaks_against(
                running(),
                serves,
                &rules.translates_alone(),
                how.drain.map_or_else(&open, |_| BTreeMap::new()),
            )?;
        }
        if let Some(at_most) = how.drain {
            drain(at_most, &rules.translates_alone(), &open, out)?;
        }
        let (gone, failed) = rules.remove();
        failures.extend(failed);
        for what in &gone {
            writeln!(out, "removed {what}")?;
        }
        let ended = rules.translates_alone();
        let left: usize = open().iter().filter(|(f, _)| !ended.contains(f)).map(|(_, n)| n).sum();
        if left > 0 {
            writeln!(
                out,
                "{} that kube-proxy has opened: netfilter goes on with them",
                connections(left)
            )?;
        }
    }
    for what in rules.kept() {
        writeln!(out, "stays: {what}")?;
    }
    for failure in &failures {
        note(format_args!("kproxy: {failure}"));
    }
    match failures.len() {
        0 if there.is_empty() => writeln!(out, "nothing to remove")?,
        0 => {}
        1 => bail!(
            "1 thing of kube-proxy's could not be looked for or removed, see above; it needs root"
        ),
        count => {
            bail!(
                "{count} things of kube-proxy's could not be looked for or removed, see above; it needs root"
            )
        }
    }
    Ok(Exit::Fine)
}

/// What an operator must see to first.
fn speaks_against(
    running: Option<Running>,
    serves: bool,
    alone: &BTreeSet<Family>,
    open: BTreeMap<Family, usize>,
) -> Result<()> {
    let seen = match running {
        Some(Running::Process(pid)) => Some(format!("pid {pid}")),
        Some(Running::Metrics(at)) => Some(format!("its metrics are at {at}")),
        None => None,
    };
    if let Some(seen) = seen {
        bail!(
            "kube-proxy is running ({seen}) and would write its rules again; stop it first, or use --force"
        );
    }
    if !serves {
        bail!(
            "kproxy does not serve on this node, and without kube-proxy's rules nobody would answer Services; \
             start kproxy first (`kproxy status`; --bpffs-root names its folder), or use --force"
        );
    }
    let ends: usize =
        open.iter().filter(|(family, _)| alone.contains(family)).map(|(_, n)| n).sum();
    if ends > 0 {
        bail!(
            "{} that kube-proxy has opened would end: no other rules on this node have netfilter translate \
             addresses; wait for them with --drain, or use --force",
            connections(ends)
        );
    }
    Ok(())
}

/// Waits until what kube-proxy has opened has ended.
fn drain(
    at_most: Option<Duration>,
    alone: &BTreeSet<Family>,
    open: &dyn Fn() -> BTreeMap<Family, usize>,
    out: &mut dyn Write,
) -> Result<()> {
    let count = || Ok(open().values().sum());
    if let Some((_, waited)) = wait_for_end(at_most, "all new ones are kproxy's", count, out)? {
        let open = open();
        let ends: usize = open.iter().filter(|(f, _)| alone.contains(f)).map(|(_, n)| n).sum();
        let all = connections(open.values().sum());
        writeln!(out, "{all} still open after {waited}s: {ends} end now")?;
    }
    Ok(())
}

/// Connections of kube-proxy's that are open.
fn open(frontends: Option<&Frontends>) -> BTreeMap<Family, usize> {
    let tracked = Conntrack::open().and_then(|conntrack| conntrack.translated());
    let tracked = tracked.unwrap_or_else(|error| {
        // Where nothing tracks connections there are none.
        debug!(%error, "cannot read netfilter's connections");
        Vec::new()
    });
    let mut open = BTreeMap::new();
    for one in tracked.iter().filter(|one| frontends.is_none_or(|known| known.has(one))) {
        *open.entry(Family::of(&one.frontend.ip())).or_default() += 1;
    }
    open
}

/// What can be dialled, as kproxy's maps have it.
struct Frontends {
    /// By protocol number, address and port; NodePorts by no address.
    all: BTreeSet<(u8, std::net::IpAddr, u16)>,
    node: BTreeSet<std::net::IpAddr>,
}

impl Frontends {
    fn of(pins: &Pins) -> Result<Self> {
        let rows = pins.frontends()?;
        let key = |row: &crate::dataplane::read::FrontendRow| {
            Some((row.protocol?.number(), row.addr, row.port))
        };
        Ok(Self { all: rows.iter().filter_map(key).collect(), node: pins.node_addresses()? })
    }

    fn has(&self, tracked: &Tracked) -> bool {
        let (ip, port) = (tracked.frontend.ip(), tracked.frontend.port());
        let has = |ip| self.all.contains(&(tracked.protocol, ip, port));
        has(ip) || self.node.contains(&ip) && has(Family::of(&ip).unspecified())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_against_it_is_one_sentence_with_the_remedy() {
        let v4: BTreeSet<_> = [Family::V4].into();
        let open = |family, count| BTreeMap::from([(family, count)]);
        let pid = Some(Running::Process(7));
        let at = Some(Running::Metrics("127.0.0.1:10249".parse().unwrap()));
        for (running, serves, alone, open, wanted) in [
            (pid, true, &v4, open(Family::V4, 0), "kube-proxy is running (pid 7)"),
            (at, false, &v4, open(Family::V4, 0), "its metrics are at 127.0.0.1:10249"),
            (None, false, &v4, open(Family::V4, 1), "kproxy does not serve"),
            (
                None,
                true,
                &v4,
                open(Family::V4, 1),
                "1 connection that kube-proxy has opened would end",
            ),
            (None, true, &v4, open(Family::V4, 2), "2 connections that"),
        ] {
            let why = speaks_against(running, serves, alone, open).unwrap_err().to_string();
            assert!(why.contains(wanted) && why.ends_with("or use --force"), "{why}");
        }
        speaks_against(None, true, &v4, open(Family::V6, 3)).unwrap();
        speaks_against(None, true, &BTreeSet::new(), open(Family::V4, 3)).unwrap();
    }
}
