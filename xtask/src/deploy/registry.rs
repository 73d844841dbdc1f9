//! The metrics that kproxy tells, from docs/metrics.md, which a test of kproxy holds against the daemon's registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, ensure};
use kproxy_common::abi::map;
use kproxy_common::drop_reason::DropReason;

use super::files::read;

/// Labels that Prometheus gives every series.
const OF_TARGETS: [&str; 2] = ["instance", "job"];

/// Maps whose fill is told.
const MAPS: [&str; 4] = [map::FRONTENDS, map::SERVICES, map::SLOTS, map::FLOWS];

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric, or one of the series of a histogram.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) kind: Kind,
    /// Its own labels and those of its target.
    pub(super) labels: BTreeSet<String>,
}

/// All metrics by the names of their series.
#[derive(Debug)]
pub(super) struct Registry(BTreeMap<String, Metric>);

impl Registry {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let page = read(&root.join("docs/metrics.md"))?;
        let registry = Self::parse(&page);
        let count = registry.0.len();
        ensure!(count > 30, "docs/metrics.md: only {count} series were found in its tables");
        Ok(registry)
    }

    fn parse(page: &str) -> Self {
        let mut all = BTreeMap::new();
        let mut add = |name: String, kind, labels: &[&str]| {
            let labels = labels.iter().chain(&OF_TARGETS).map(|&label| label.to_owned()).collect();
            all.insert(name, Metric { kind, labels });
        };
        for line in page.lines() {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, _, labels, _] = cells.as_slice() else { continue };
            let name = name.trim_matches('`');
            let labels: Vec<_> =
                labels.split_whitespace().map(|label| label.trim_matches('`')).collect();
            match *kind {
                "counter" => add(name.to_owned(), Kind::Counter, &labels),
                "gauge" => add(name.to_owned(), Kind::Gauge, &labels),
                "histogram" => {
                    let with_le: Vec<_> = labels.iter().copied().chain(["le"]).collect();
                    add(format!("{name}_bucket"), Kind::Histogram, &with_le);
                    add(format!("{name}_sum"), Kind::Histogram, &labels);
                    add(format!("{name}_count"), Kind::Histogram, &labels);
                }
                _ => {}
            }
        }
        // What Prometheus itself says of a target.
        add("up".to_owned(), Kind::Gauge, &[]);
        Self(all)
    }

    pub(super) fn find(&self, series: &str) -> Option<&Metric> {
        self.0.get(series)
    }

    /// Whether a label may have the value; of those whose values are known.
    pub(super) fn knows(label: &str, value: &str) -> bool {
        match label {
            "reason" => DropReason::ALL.iter().any(|reason| reason.name() == value),
            "assured" => ["true", "false"].contains(&value),
            "map" => MAPS.contains(&value),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let page = "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n\
                    | `a_total` | counter | 1 | `reason` `map` | x |\n| `b` | gauge | 1 |  | y |\n\
                    | `c_seconds` | histogram | seconds | `ip_family` | z |\n";
        let registry = Registry::parse(page);
        let labels =
            |name: &str| registry.find(name).unwrap().labels.iter().cloned().collect::<Vec<_>>();
        assert_eq!(labels("a_total"), ["instance", "job", "map", "reason"]);
        assert_eq!(labels("b"), ["instance", "job"]);
        assert!(labels("c_seconds_bucket").contains(&"le".to_owned()));
        assert!(registry.find("c_seconds").is_none() && registry.find("name").is_none());
        assert!(Registry::knows("reason", "no-backend") && !Registry::knows("reason", "bored"));
    }
}
