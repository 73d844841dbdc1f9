//! What a look shows, in words that can be compared.
//!
//! `n1/a n2/a as itself`: these backends answered and saw the client's own address;
//! `n2/a as n1`: they saw an address of node n1; `always the same as itself`: one backend answered
//! every request; `refused`, `dropped`, `unreachable`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kproxy_lab::{HoldReport, HttpOutcome, Outcome, Verdict};
use serde_json::Value;

/// A backend may answer so many times as often as another before the spread counts as uneven:
/// chance gives 40 requests over 3 backends such a ratio about once in a thousand runs.
const EVEN: usize = 6;

/// Fewer requests than these say nothing about the spread.
const ENOUGH: usize = 20;

/// What is added when the spread is uneven.
pub(super) const UNEVENLY: &str = ", unevenly";

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
pub(super) fn outcome(outcome: &Outcome, asker: &str, owners: &Owners) -> String {
    if outcome.all_answered() {
        let servers = outcome.servers();
        let names: Vec<&str> = servers.keys().copied().collect();
        let (least, most) = (servers.values().min(), servers.values().max());
        let uneven = matches!((least, most), (Some(&least), Some(&most)) if most > least * EVEN)
            && outcome.attempts.len() >= ENOUGH;
        let spread = if uneven { UNEVENLY } else { "" };
        return format!("{} as {}{spread}", names.join(" "), clients(outcome, asker, owners));
    }
    let kinds: BTreeSet<String> = outcome.attempts.iter().map(|a| kind(&a.verdict)).collect();
    kinds.into_iter().collect::<Vec<_>>().join(" or ")
}

/// What came of requests that one backend alone must answer, in words.
pub(super) fn sticky(outcome: &Outcome, asker: &str, owners: &Owners) -> String {
    if outcome.all_answered() && outcome.servers().len() == 1 {
        return format!("always the same as {}", clients(outcome, asker, owners));
    }
    self::outcome(outcome, asker, owners)
}

/// Whom the backends saw.
fn clients(outcome: &Outcome, asker: &str, owners: &Owners) -> String {
    let names = outcome.clients().into_iter().map(|address| owners.name(asker, address));
    names.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join(" ")
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

/// What one request came to, in words: who has answered, or why nobody has.
pub(super) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Answered(answer) => answer.server.clone(),
        other => kind(other),
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

/// Who answers a connection now, in words: what came between two reports.
pub(super) fn held_now(before: &HoldReport, after: &HoldReport) -> String {
    let more = |map: &BTreeMap<String, u64>, old: &BTreeMap<String, u64>| -> Vec<String> {
        let grown = |(name, count): (&String, &u64)| {
            (*count > old.get(name).copied().unwrap_or(0)).then(|| name.clone())
        };
        map.iter().filter_map(grown).collect()
    };
    let mut words = more(&after.servers, &before.servers);
    words.extend(more(&after.errors, &before.errors));
    if after.lost > before.lost {
        words.push("nobody".to_owned());
    }
    words.extend(after.broken.iter().map(|error| format!("broken: {error}")));
    words.join(" or ")
}

/// What a health-check server answers, in words: status, Service, local endpoints, the proxy's own
/// health, then what its headers and its layout are.
pub(super) fn http(outcome: &HttpOutcome) -> String {
    let answer = match outcome {
        HttpOutcome::Answered(answer) => answer,
        HttpOutcome::Refused => return "refused".to_owned(),
        HttpOutcome::Timeout => return "dropped".to_owned(),
        HttpOutcome::Failed(error) => return error.clone(),
    };
    let header = |name| answer.header(name).unwrap_or("-");
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else {
        return format!("{} {}", answer.status, answer.body.trim());
    };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let service = &body["service"];
    let tabs = if answer.body.contains("\n\t") { "tabs" } else { "no tabs" };
    format!(
        "{} {}/{} local {} healthy {}, weight {}, {}, {}, {tabs}",
        answer.status,
        text(&service["namespace"]),
        text(&service["name"]),
        body["localEndpoints"],
        body["serviceProxyHealthy"],
        header("x-load-balancing-endpoint-weight"),
        header("content-type"),
        header("x-content-type-options"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(servers: &[(&str, u64)], lost: u64) -> HoldReport {
        let servers = servers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        HoldReport { servers, lost, answered: 1, ..HoldReport::default() }
    }

    #[test]
    fn only_what_came_lately_counts_as_now() {
        let before = report(&[("n1/a", 5), ("n2/a", 1)], 2);
        assert_eq!(held_now(&before, &report(&[("n1/a", 5), ("n2/a", 3)], 2)), "n2/a");
        assert_eq!(held_now(&before, &report(&[("n1/a", 5), ("n2/a", 1)], 3)), "nobody");
    }
}
