//! The results: as a table and as JSON, one row an id.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{
    case::Case,
    ids::{Id, WithoutCase},
    sight::Sight,
};

/// How kproxy compares on one id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Comparison {
    /// As kube-proxy.
    Same,
    /// A documented improvement.
    Better,
    /// Another difference, or one of the proxies did not show what is expected.
    Differs,
}

impl Comparison {
    const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Better => "better",
            Self::Differs => "differs",
        }
    }
}

/// What the proxies showed in one case.
#[derive(Clone, Debug, Default)]
pub(super) struct Played {
    /// kproxy.
    pub(super) kproxy: Vec<Sight>,
    /// kube-proxy, nftables mode.
    pub(super) nftables: Vec<Sight>,
    /// kube-proxy, iptables mode, where the case is for it.
    pub(super) iptables: Vec<Sight>,
}

impl Played {
    /// Adds what is for one id of a case, and what went wrong altogether.
    fn add(&mut self, played: &Self, id: &str, case: &Case) {
        let wanted = |sight: &&Sight| sight.is_failure() || case.is_for(id, &sight.ids);
        let of = |sights: &[Sight]| sights.iter().filter(wanted).cloned().collect::<Vec<_>>();
        let missing = Sight::failure("the same step", "not reached");
        let (mut ours, mut theirs) = (of(&played.kproxy), of(&played.nftables));
        let length = ours.len().max(theirs.len());
        ours.resize(length, missing.clone());
        theirs.resize(length, missing);
        self.kproxy.extend(ours);
        self.nftables.extend(theirs);
        self.iptables.extend(of(&played.iptables));
    }
}

/// One id on all proxies.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) is: String,
    cases: Vec<String>,
    played: Played,
    pub(super) verdict: Comparison,
    why: String,
}

/// A row as JSON.
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    name: &'a str,
    kproxy: String,
    kube_proxy: String,
    verdict: Comparison,
    why: &'a str,
    /// The cases that show it: cases are called after the first of their ids.
    cases: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    kube_proxy_iptables: Option<String>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    cases: Vec<JsonRow<'a>>,
    ids_without_case: &'a [WithoutCase<'a>],
}

impl Row {
    /// Compares what was seen.
    pub(super) fn new(
        id: &Id,
        cases: &[(&Case, &Played)],
        improvements: &BTreeMap<String, String>,
    ) -> Self {
        let mut played = Played::default();
        for (case, of_case) in cases {
            played.add(of_case, &id.id, case);
        }
        let documented = improvements.contains_key(&id.id);
        let (mut verdict, mut reasons) = (Comparison::Same, Vec::new());
        for (ours, theirs) in played.kproxy.iter().zip(&played.nftables) {
            let found = compare(ours, theirs, documented);
            verdict = verdict.max(found);
            if found == Comparison::Differs {
                reasons.push(format!(
                    "{}: expected {}; kproxy showed {}, kube-proxy {}",
                    ours.probe, ours.expected, ours.seen, theirs.seen
                ));
            }
        }
        for sight in played.iptables.iter().filter(|sight| !sight.is_expected()) {
            verdict = Comparison::Differs;
            reasons.push(format!(
                "{}: expected {}; kube-proxy's iptables mode showed {}",
                sight.probe, sight.expected, sight.seen
            ));
        }
        let why = match verdict {
            Comparison::Same => String::new(),
            Comparison::Better => improvements.get(&id.id).cloned().unwrap_or_default(),
            Comparison::Differs => reasons.join("; "),
        };
        let (id, is) = (id.id.clone(), id.is.clone());
        let cases = cases.iter().map(|(case, _)| case.name.clone()).collect();
        Self { id, is, cases, played, verdict, why }
    }

    /// kproxy shows a difference that no page explains.
    pub(super) fn differs(&self) -> bool {
        self.verdict == Comparison::Differs
    }
}

fn compare(ours: &Sight, theirs: &Sight, documented: bool) -> Comparison {
    // kube-proxy must have shown what this project says that it shows.
    if !ours.is_expected() || !theirs.is_expected() {
        return Comparison::Differs;
    }
    match (ours.seen == theirs.seen, documented) {
        (true, _) => Comparison::Same,
        (false, true) => Comparison::Better,
        (false, false) => Comparison::Differs,
    }
}

/// The rows as JSON.
///
/// # Errors
/// Never in practice: the rows hold only text.
pub(super) fn json(rows: &[Row], without: &[WithoutCase<'_>]) -> serde_json::Result<String> {
    let words = |sights: &[Sight]| {
        let words = sights.iter().map(|sight| format!("{}: {}", sight.probe, sight.seen));
        words.collect::<Vec<_>>().join("; ")
    };
    let cases = rows
        .iter()
        .map(|row| JsonRow {
            id: &row.id,
            name: &row.is,
            kproxy: words(&row.played.kproxy),
            kube_proxy: words(&row.played.nftables),
            verdict: row.verdict,
            why: &row.why,
            cases: &row.cases,
            kube_proxy_iptables: (!row.played.iptables.is_empty())
                .then(|| words(&row.played.iptables)),
        })
        .collect();
    serde_json::to_string_pretty(&JsonReport { cases, ids_without_case: without })
}

/// The rows as a table: looks that show the same are counted, the others shown.
pub(super) fn table(rows: &[Row], without: usize) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{arguments}");
    };
    line(format_args!("{:<8} {:<8} {:>6}  BEHAVIOUR", "ID", "VERDICT", "LOOKS"));
    for row in rows {
        let (id, verdict) = (&row.id, row.verdict.name());
        line(format_args!("{id:<8} {verdict:<8} {:>6}  {}", row.played.kproxy.len(), row.is));
        for (ours, theirs) in row.played.kproxy.iter().zip(&row.played.nftables) {
            if ours.seen == theirs.seen && ours.is_expected() {
                continue;
            }
            line(format_args!("{:>26}{}", "", ours.probe));
            line(format_args!("{:>28}kproxy      {}", "", ours.seen));
            line(format_args!("{:>28}kube-proxy  {}", "", theirs.seen));
            for sight in [ours, theirs] {
                if !sight.is_expected() {
                    line(format_args!("{:>28}expected    {}", "", sight.expected));
                }
            }
        }
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    line(format_args!(
        "\n{} ids with a case: {} same, {} better, {} different; {without} without",
        rows.len(),
        count(Comparison::Same),
        count(Comparison::Better),
        count(Comparison::Differs),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::read;

    fn sight(expected: &str, seen: &str) -> Sight {
        let (probe, ids) = ("p".into(), Vec::new());
        Sight { probe, ids, expected: expected.into(), seen: seen.into() }
    }

    fn case() -> Case {
        let text = "case: VER-05\ncovers: [VER-12]\n---\nprobe: p\nfrom: []\nto: []\nsee: s\n---\n\
                    probe: p\nids: [VER-12]\nfrom: []\nto: []\nsee: s\n";
        read::parse(text).unwrap().remove(0)
    }

    fn row(id: &str, played: &Played, documented: bool) -> Row {
        let improvements = BTreeMap::from([("VER-05".to_owned(), "because".to_owned())]);
        let improvements = if documented { improvements } else { BTreeMap::new() };
        let id = Id { id: id.into(), is: "n".into(), reason: None, shown_by: None };
        Row::new(&id, &[(&case(), played)], &improvements)
    }

    fn verdict(ours: Sight, theirs: Sight, documented: bool) -> Comparison {
        let played = Played { kproxy: vec![ours], nftables: vec![theirs], iptables: Vec::new() };
        row("VER-05", &played, documented).verdict
    }

    #[test]
    fn a_difference_is_better_only_when_expected_and_documented() {
        let (ours, theirs) = (sight("as itself", "as itself"), sight("as n1", "as n1"));
        assert_eq!(verdict(ours.clone(), theirs.clone(), true), Comparison::Better);
        assert_eq!(verdict(ours.clone(), theirs, false), Comparison::Differs);
        assert_eq!(verdict(ours, sight("as n1", "dropped"), true), Comparison::Differs);
    }

    #[test]
    fn two_that_fail_alike_are_not_the_same() {
        let broken = || sight("a", "dropped");
        assert_eq!(verdict(broken(), broken(), true), Comparison::Differs);
        assert_eq!(verdict(sight("a", "a"), sight("a", "a"), false), Comparison::Same);
        assert_eq!(verdict(sight("a", "a"), sight("b", "a"), false), Comparison::Differs);
    }

    #[test]
    fn a_step_that_one_side_did_not_reach_differs() {
        let played = Played { nftables: vec![sight("a", "a")], ..Played::default() };
        assert!(row("VER-05", &played, false).differs());
    }

    #[test]
    fn an_id_is_judged_by_the_looks_that_are_for_it() {
        let mut bad = sight("a", "b");
        bad.ids = vec!["VER-12".to_owned()];
        let sights = vec![sight("a", "a"), bad];
        let played = Played { kproxy: sights.clone(), nftables: sights, iptables: Vec::new() };
        assert!(!row("VER-05", &played, false).differs());
        assert!(row("VER-12", &played, false).differs());
    }

    #[test]
    fn an_id_is_judged_by_all_its_cases() {
        let (first, second) = (case(), case());
        let played = |seen| Played {
            kproxy: vec![sight("a", seen)],
            nftables: vec![sight("a", "a")],
            iptables: Vec::new(),
        };
        let id = Id { id: "VER-05".into(), is: "n".into(), reason: None, shown_by: None };
        let row = |seen| {
            let (one, other) = (played("a"), played(seen));
            Row::new(&id, &[(&first, &one), (&second, &other)], &BTreeMap::new())
        };
        assert!(!row("a").differs());
        assert!(row("b").differs());
    }

    #[test]
    fn json_has_the_agreed_keys() {
        let played = Played {
            kproxy: vec![sight("a", "a")],
            nftables: vec![sight("a", "a")],
            iptables: Vec::new(),
        };
        let without = WithoutCase { id: "CT-11", reason: "cost", shown_by: None };
        let text = json(&[row("VER-05", &played, false)], &[without]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["cases"][0]["verdict"], "same");
        assert_eq!(value["cases"][0]["kube_proxy"], "p: a");
        assert_eq!(value["ids_without_case"][0]["reason"], "cost");
    }
}
