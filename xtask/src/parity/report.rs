//! The results: as a table and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{case::Case, play::Sight};

/// How kproxy compares on one case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As kube-proxy.
    Same,
    /// A documented improvement.
    Better,
    /// Another difference, or neither showed what is expected.
    Differs,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Better => "better",
            Self::Differs => "differs",
        }
    }
}

/// One case on both proxies.
#[derive(Debug)]
pub(super) struct Row {
    id: String,
    name: String,
    kproxy: Vec<Sight>,
    kube_proxy: Vec<Sight>,
    verdict: Verdict,
    why: String,
}

/// A row as JSON.
#[derive(Serialize)]
struct JsonRow<'a> {
    id: &'a str,
    name: &'a str,
    kproxy: String,
    kube_proxy: String,
    verdict: Verdict,
    why: &'a str,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    cases: Vec<JsonRow<'a>>,
    ids_without_case: &'a [&'a str],
}

impl Row {
    /// Compares what was seen.
    pub(super) fn new(
        case: &Case,
        kproxy: Vec<Sight>,
        kube_proxy: Vec<Sight>,
        improvements: &BTreeMap<String, String>,
    ) -> Self {
        let (mut verdict, mut reasons) = (Verdict::Same, Vec::new());
        for (ours, theirs) in kproxy.iter().zip(&kube_proxy) {
            let found = compare(ours, theirs, improvements.contains_key(&case.id));
            verdict = verdict.max(found);
            if found == Verdict::Differs {
                reasons.push(format!(
                    "{}: expected {}; kproxy showed {}, kube-proxy {}",
                    ours.probe, ours.expected, ours.seen, theirs.seen
                ));
            }
        }
        let why = match verdict {
            Verdict::Same => String::new(),
            Verdict::Better => improvements.get(&case.id).cloned().unwrap_or_default(),
            Verdict::Differs => reasons.join("; "),
        };
        Self { id: case.id.clone(), name: case.name.clone(), kproxy, kube_proxy, verdict, why }
    }

    /// The case's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// kproxy shows a difference that no page explains.
    pub(super) fn differs(&self) -> bool {
        self.verdict == Verdict::Differs
    }
}

fn compare(ours: &Sight, theirs: &Sight, documented: bool) -> Verdict {
    if !ours.is_expected() {
        return Verdict::Differs;
    }
    if ours.seen == theirs.seen {
        return Verdict::Same;
    }
    // kube-proxy must have shown what this project says that it shows.
    if documented && theirs.is_expected() { Verdict::Better } else { Verdict::Differs }
}

/// The rows as JSON.
///
/// # Errors
/// Never in practice: the rows hold only text.
pub(super) fn json(rows: &[Row], ids_without_case: &[&str]) -> serde_json::Result<String> {
    let words = |sights: &[Sight]| {
        let words = sights.iter().map(|sight| format!("{}: {}", sight.probe, sight.seen));
        words.collect::<Vec<_>>().join("; ")
    };
    let cases = rows
        .iter()
        .map(|row| JsonRow {
            id: &row.id,
            name: &row.name,
            kproxy: words(&row.kproxy),
            kube_proxy: words(&row.kube_proxy),
            verdict: row.verdict,
            why: &row.why,
        })
        .collect();
    serde_json::to_string_pretty(&JsonReport { cases, ids_without_case })
}

/// The rows as a table: probes that show the same are counted, the others shown.
pub(super) fn table(rows: &[Row], ids_without_case: usize) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{arguments}");
    };
    line(format_args!("{:<8} {:<8} {:>6}  BEHAVIOUR", "ID", "VERDICT", "PROBES"));
    for row in rows {
        let (id, verdict) = (&row.id, row.verdict.name());
        line(format_args!("{id:<8} {verdict:<8} {:>6}  {}", row.kproxy.len(), row.name));
        for (ours, theirs) in row.kproxy.iter().zip(&row.kube_proxy) {
            if ours.seen == theirs.seen && ours.is_expected() {
                continue;
            }
            line(format_args!("{:>26}{}", "", ours.probe));
            line(format_args!("{:>28}kproxy      {}", "", ours.seen));
            line(format_args!("{:>28}kube-proxy  {}", "", theirs.seen));
            if !ours.is_expected() {
                line(format_args!("{:>28}expected    {}", "", ours.expected));
            }
        }
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    line(format_args!(
        "\n{} cases: {} same, {} better, {} different; {ids_without_case} ids without a case",
        rows.len(),
        count(Verdict::Same),
        count(Verdict::Better),
        count(Verdict::Differs),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(expected: &str, seen: &str) -> Sight {
        Sight { probe: "p".into(), expected: expected.into(), seen: seen.into() }
    }

    fn case() -> Case {
        Case { id: "VER-05".into(), name: "n".into(), covers: vec![], steps: vec![] }
    }

    fn verdict(ours: Sight, theirs: Sight, documented: bool) -> Verdict {
        let improvements = BTreeMap::from([("VER-05".to_owned(), "because".to_owned())]);
        let improvements = if documented { improvements } else { BTreeMap::new() };
        Row::new(&case(), vec![ours], vec![theirs], &improvements).verdict
    }

    #[test]
    fn a_difference_is_better_only_when_expected_and_documented() {
        let (ours, theirs) = (sight("as itself", "as itself"), sight("as n1", "as n1"));
        assert_eq!(verdict(ours.clone(), theirs.clone(), true), Verdict::Better);
        assert_eq!(verdict(ours.clone(), theirs, false), Verdict::Differs);
        assert_eq!(verdict(ours, sight("as n1", "dropped"), true), Verdict::Differs);
    }

    #[test]
    fn two_that_fail_alike_are_not_the_same() {
        let broken = || sight("a", "dropped");
        assert_eq!(verdict(broken(), broken(), true), Verdict::Differs);
        assert_eq!(verdict(sight("a", "a"), sight("a", "a"), false), Verdict::Same);
    }

    #[test]
    fn json_has_the_agreed_keys() {
        let row = Row::new(&case(), vec![sight("a", "a")], vec![sight("a", "a")], &BTreeMap::new());
        let text = json(&[row], &["AFF-01"]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["cases"][0]["verdict"], "same");
        assert_eq!(value["cases"][0]["kube_proxy"], "p: a");
        assert_eq!(value["ids_without_case"][0], "AFF-01");
    }
}
