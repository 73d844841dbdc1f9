//! What a probe shows, in words that can be compared.
//!
//! `n1/a n2/a as itself`: these backends answered and saw the client's own address;
//! `n2/a as n1`: they saw an address of node n1; `refused`, `dropped`, `unreachable`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kproxy_lab::{HoldReport, Outcome, Verdict};

/// A backend may answer so many times as often as another before the spread counts as uneven:
/// chance gives 30 requests over 3 backends a ratio above 5 about once in a thousand runs.
const EVEN: usize = 6;

/// Whose an address is.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Address → place.
    pub(super) of: BTreeMap<IpAddr, String>,
}

impl Owners {
    /// Name of the address's owner from the point of view of `asker`.
    fn name(&self, asker: &str, address: IpAddr) -> String {
        match self.of.get(&address.to_canonical()) {
            Some(owner) if owner == asker => "itself".to_owned(),
            Some(owner) => owner.clone(),
            None => address.to_string(),
        }
    }
}

/// What came of a probe, in words.
pub(super) fn words(outcome: &Outcome, asker: &str, owners: &Owners) -> String {
    if outcome.all_answered() {
        let servers = outcome.servers();
        let names: Vec<&str> = servers.keys().copied().collect();
        let clients: BTreeSet<String> =
            outcome.clients().into_iter().map(|address| owners.name(asker, address)).collect();
        let clients: Vec<String> = clients.into_iter().collect();
        let (least, most) = (servers.values().min(), servers.values().max());
        let uneven = matches!((least, most), (Some(&least), Some(&most)) if most > least * EVEN);
        let spread = if uneven { ", unevenly" } else { "" };
        return format!("{} as {}{spread}", names.join(" "), clients.join(" "));
    }
    let kinds: BTreeSet<String> = outcome.attempts.iter().map(|a| kind(&a.verdict)).collect();
    kinds.into_iter().collect::<Vec<_>>().join(" or ")
}

fn kind(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Answered(answer) => format!("{} (sometimes)", answer.server),
        Verdict::Refused => "refused".to_owned(),
        Verdict::Timeout => "dropped".to_owned(),
        Verdict::Failed(error) if ["ENETUNREACH", "EHOSTUNREACH"].contains(&error.as_str()) => {
            "unreachable".to_owned()
        }
        Verdict::Failed(error) => error.clone(),
    }
}

/// What became of a connection that was held, in words.
pub(super) fn held(report: &HoldReport) -> String {
    match &report.broken {
        _ if report.is_flawless() => "nothing lost".to_owned(),
        Some(error) => format!("broken: {error}"),
        None => format!("{} of {} lost", report.lost, report.sent),
    }
}
