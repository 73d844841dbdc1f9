//! The rules for Prometheus: deploy/prometheus/rules.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use promql_parser::util::parse_duration;
use serde::Deserialize;

use super::{files::read, promql, registry::Registry, report::Report};

const FILE: &str = "deploy/prometheus/rules.yaml";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// A file of Prometheus' `rule_files`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    time: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

pub(super) fn check(root: &Path, registry: &Registry, report: &mut Report) {
    let result = read(&root.join(FILE)).and_then(|text| all(&text, registry));
    report.note("Prometheus rules", result.map(|count| format!("{count} alerts")));
}

fn all(text: &str, registry: &Registry) -> Result<usize> {
    let rules: Rules = serde_saphyr::from_str(text).with_context(|| format!("read {FILE}"))?;
    let mut names = BTreeSet::new();
    for group in &rules.groups {
        for rule in &group.rules {
            one(rule, registry).with_context(|| format!("{} of {}", rule.alert, group.name))?;
            ensure!(names.insert(&rule.alert), "{} stands twice", rule.alert);
        }
    }
    ensure!(!names.is_empty(), "{FILE} has no rules");
    Ok(names.len())
}

fn one(rule: &Rule, registry: &Registry) -> Result<()> {
    let checked = promql::check(&rule.expr, registry)?;
    if let Some(time) = &rule.time {
        parse_duration(time).map_err(|error| anyhow!("for {time}: {error}"))?;
    }
    let severity = rule.labels.get("severity").context("it has no severity")?;
    ensure!(SEVERITIES.contains(&severity.as_str()), "severity {severity}");
    for wanted in ["summary", "description"] {
        let text = rule.annotations.get(wanted).with_context(|| format!("it has no {wanted}"))?;
        for label in named(text) {
            ensure!(checked.labels.contains(label), "{wanted}: no label {label} is left");
        }
    }
    Ok(())
}

/// The labels that a template of Go names: `{{ $labels.instance }}`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let of = text.split("$labels.").skip(1);
    of.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    const GOOD: &str = "groups: [{name: a, rules: [{alert: A, expr: kproxy_problems > 0, for: 5m, \
                        labels: {severity: info}, annotations: {summary: 'of {{ $labels.instance }}', \
                        description: d}}]}]";

    #[test]
    fn a_bad_rule_is_found() {
        let registry = Registry::read(&workspace::root()).unwrap();
        assert_eq!(all(GOOD, &registry).unwrap(), 1);
        for (from, to) in [
            ("kproxy_problems", "kproxy_worries"),
            ("5m", "soon"),
            ("severity: info", "severity: mild"),
            ("instance", "service"),
            ("description", "detail"),
            ("expr:", "expression:"),
        ] {
            assert!(all(&GOOD.replace(from, to), &registry).is_err(), "{from} → {to}");
        }
    }
}
