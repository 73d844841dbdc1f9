//! PromQL held against the metrics that there are.

use std::collections::BTreeSet;
use std::convert::Infallible;

use anyhow::{Result, anyhow, bail};
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Call, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

use super::registry::{Kind, Registry};

/// What an expression may be labelled with.
#[derive(Debug)]
pub(super) struct Checked {
    /// Labels of its metrics that are not aggregated away, as far as one sees.
    pub(super) labels: BTreeSet<String>,
}

/// Parses an expression; its metrics and labels exist, and it treats them as what they are.
///
/// # Errors
/// When it is no PromQL, or names what there is not.
pub(super) fn check(expression: &str, registry: &Registry) -> Result<Checked> {
    let parsed = parser::parse(expression).map_err(|error| anyhow!("{error}: {expression}"))?;
    let mut walk = Walk {
        registry,
        labels: BTreeSet::new(),
        modifiers: Vec::new(),
        rated: 0,
        findings: Vec::new(),
    };
    match walk_expr(&mut walk, &parsed) {
        Ok(_) => {}
        Err(never) => match never {},
    }
    for label in walk.modifiers.iter().filter(|&label| !walk.labels.contains(label)) {
        walk.findings.push(format!("no metric here has the label {label}"));
    }
    if !walk.findings.is_empty() {
        bail!("{}: {expression}", walk.findings.join("; "));
    }
    Ok(Checked { labels: left(&parsed, walk.labels) })
}

/// Labels that the outermost aggregation leaves.
fn left(expression: &Expr, all: BTreeSet<String>) -> BTreeSet<String> {
    match expression {
        Expr::Paren(inner) => left(&inner.expr, all),
        // A comparison with a number, and what is given when there is nothing.
        Expr::Binary(binary) if !matches!(*binary.lhs, Expr::NumberLiteral(_)) => {
            left(&binary.lhs, all)
        }
        Expr::Call(call) => match call.args.args.last() {
            Some(last) => left(last, all),
            None => BTreeSet::new(),
        },
        // topk and bottomk leave the labels of what they choose from.
        Expr::Aggregate(aggregate) if aggregate.param.is_some() => left(&aggregate.expr, all),
        Expr::Aggregate(aggregate) => match &aggregate.modifier {
            None => BTreeSet::new(),
            Some(modifier) => {
                let named: BTreeSet<_> = modifier.labels().labels.iter().cloned().collect();
                let keep = |label: &String| named.contains(label) == modifier.is_include();
                all.into_iter().filter(keep).collect()
            }
        },
        _ => all,
    }
}

struct Walk<'a> {
    registry: &'a Registry,
    /// Of all metrics.
    labels: BTreeSet<String>,
    /// Labels in `by`, `on` and the like.
    modifiers: Vec<String>,
    /// How many functions for counters are around.
    rated: usize,
    findings: Vec<String>,
}

impl Walk<'_> {
    fn selector(&mut self, selector: &VectorSelector) {
        let Some(name) = &selector.name else {
            self.findings.push("a selector without the name of a metric".to_owned());
            return;
        };
        let Some(metric) = self.registry.find(name) else {
            self.findings.push(format!("there is no metric {name}"));
            return;
        };
        self.labels.extend(metric.labels.iter().cloned());
        for matcher in &selector.matchers.matchers {
            let label = &matcher.name;
            if !metric.labels.contains(label) {
                self.findings.push(format!("{name} has no label {label}"));
            }
            let values: Vec<&str> = match &matcher.op {
                MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
                MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
            };
            for value in values.iter().filter(|value| !Registry::knows(label, value)) {
                self.findings.push(format!("{label} is never {value}"));
            }
        }
        match (metric.kind, self.rated > 0) {
            (Kind::Gauge, true) => self.findings.push(format!("{name} is no counter")),
            (Kind::Counter | Kind::Histogram, false) => {
                self.findings.push(format!("{name} only grows: take its rate"));
            }
            _ => {}
        }
    }
}

/// Functions whose argument is a counter.
fn takes_counters(call: &Call) -> bool {
    ["rate", "irate", "increase"].contains(&call.func.name)
}

impl ExprVisitor for Walk<'_> {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Call(call) if takes_counters(call) => self.rated += 1,
            Expr::Aggregate(aggregate) => {
                let named = aggregate.modifier.iter().flat_map(|by| &by.labels().labels);
                self.modifiers.extend(named.cloned());
            }
            Expr::Binary(binary) => {
                let modifier = binary.modifier.iter();
                let matching = modifier.clone().filter_map(|by| by.matching.as_ref());
                let named = matching.flat_map(|by| &by.labels().labels);
                self.modifiers.extend(named.cloned());
                let grouped = modifier.filter_map(|by| by.card.labels());
                self.modifiers.extend(grouped.flat_map(|labels| &labels.labels).cloned());
            }
            _ => {}
        }
        Ok(true)
    }

    fn post_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        if let Expr::Call(call) = expression
            && takes_counters(call)
        {
            self.rated -= 1;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn registry() -> Registry {
        Registry::read(&workspace::root()).unwrap()
    }

    #[test]
    fn what_there_is_may_be_asked_for() {
        let labels = |text: &str| {
            let checked = check(text, &registry()).unwrap();
            checked.labels.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(labels("up{job=\"kproxy\"} == 0"), ["instance", "job"]);
        assert_eq!(labels("sum by (reason) (rate(kproxy_drops_total[5m])) > 1"), ["reason"]);
        let quantile = "histogram_quantile(0.9, sum by (le, instance) \
                        (rate(kubeproxy_network_programming_duration_seconds_bucket[5m])))";
        assert!(labels(quantile).contains(&"instance".to_owned()));
        assert!(
            labels("topk(3, sum by (service) (rate(kproxy_service_bytes_total[5m])))")
                .contains(&"service".to_owned())
        );
    }

    #[test]
    fn what_there_is_not_is_found() {
        for (text, finding) in [
            ("rate(kproxy_dropped_total[5m])", "no metric kproxy_dropped_total"),
            ("sum(kproxy_problems", "unclosed"),
            ("kproxy_problems{service=\"a\"}", "has no label service"),
            ("sum by (service) (kproxy_problems)", "has the label service"),
            ("kproxy_flows / on (pod) kproxy_problems", "has the label pod"),
            ("rate(kproxy_drops_total{reason=\"bored\"}[5m])", "reason is never bored"),
            ("rate(kproxy_drops_total{reason=~\"no-backend|bored\"}[5m])", "is never bored"),
            ("kproxy_drops_total > 5", "only grows"),
            ("rate(kproxy_problems[5m])", "is no counter"),
            ("{job=\"kproxy\"}", "without the name"),
            ("rate(kproxy_drops_total)", "expected type"),
            ("kubeproxy_network_programming_duration_seconds", "no metric"),
        ] {
            let said = check(text, &registry()).unwrap_err().to_string();
            assert!(said.contains(finding), "{text}: {said}");
        }
    }
}
