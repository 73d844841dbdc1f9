//! The metrics that a proxy has told, in words that can be compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

/// In front of the names that cases write.
const PREFIX: &str = "kubeproxy_";

/// What a proxy has told at one time, in the text format of Prometheus.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape {
    /// Kinds of metrics by name.
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Samples that are meant: `name label=value …`.
pub(super) struct Series<'a> {
    /// Name of the metric.
    pub(super) name: String,
    labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Series<'a> {
    /// Reads what a case writes.
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let mut words = text.split(' ');
        let name = format!("{PREFIX}{}", words.next().unwrap_or_default());
        let label =
            |word: &'a str| word.split_once('=').with_context(|| format!("no label: {word}"));
        Ok(Self { name, labels: words.map(label).collect::<Result<_>>()? })
    }

    fn holds(&self, sample: &Sample) -> bool {
        let has =
            |(name, value): &(&str, &str)| sample.labels.get(*name).is_some_and(|v| v == value);
        sample.name == self.name && self.labels.iter().all(has)
    }
}

impl Scrape {
    /// Reads the text. Lines that are none of the format are left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let kind = rest.split_once(' ').map(|(name, kind)| (name.into(), kind.into()));
                scrape.kinds.extend(kind);
            } else if !line.starts_with('#') {
                scrape.samples.extend(sample(line));
            }
        }
        scrape
    }

    fn of<'s>(&'s self, series: &Series<'_>) -> impl Iterator<Item = &'s Sample> {
        self.samples.iter().filter(|sample| series.holds(sample))
    }

    /// The sum of a series, for each value of the label `by` if one is given.
    pub(super) fn sums(&self, series: &Series<'_>, by: Option<&str>) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(series) {
            let value = by.and_then(|by| sample.labels.get(by)).cloned().unwrap_or_default();
            *sums.entry(value).or_default() += sample.value;
        }
        sums
    }

    /// By how much a series has grown since `before`: `+1`, or `external +0, internal +1`.
    pub(super) fn growth(&self, before: &Self, series: &Series<'_>, by: Option<&str>) -> String {
        let known = before.sums(series, by);
        let grown = self.sums(series, by).into_iter().map(|(label, sum)| {
            let growth = sum - known.get(&label).copied().unwrap_or(0.0);
            format!("{label} {growth:+}").trim_start().to_owned()
        });
        let grown = grown.collect::<Vec<_>>().join(", ");
        if grown.is_empty() { "absent".to_owned() } else { grown }
    }

    /// Kind, labels with their values, and number of buckets: what a dashboard relies on.
    pub(super) fn kind(&self, name: &str) -> String {
        let Some(kind) = self.kinds.get(name) else { return "absent".to_owned() };
        let mut labels = BTreeMap::<&str, BTreeSet<&str>>::new();
        let is_part = |sample: &&Sample| match sample.name.strip_prefix(name) {
            Some("") => true,
            Some(part) => kind == "histogram" && ["_bucket", "_sum", "_count"].contains(&part),
            None => false,
        };
        for (label, value) in self.samples.iter().filter(is_part).flat_map(|s| &s.labels) {
            labels.entry(label).or_default().insert(value);
        }
        let mut words = vec![kind.clone()];
        for (label, values) in labels {
            words.push(if label == "le" {
                format!("{} buckets", values.len())
            } else {
                format!("{label} {}", values.into_iter().collect::<Vec<_>>().join(" "))
            });
        }
        words.join(", ")
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?.split("\",").filter(|label| !label.is_empty());
    let label = |label: &str| {
        let (name, value) = label.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    };
    Some(Sample {
        name: name.to_owned(),
        labels: labels.map(label).collect::<Option<_>>()?,
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
# HELP kubeproxy_lacks Ports
# TYPE kubeproxy_lacks gauge
kubeproxy_lacks{ip_family=\"IPv4\",policy=\"inner\"} 1
kubeproxy_lacks{ip_family=\"IPv4\",policy=\"outer\"} 2
kubeproxy_lacks{ip_family=\"IPv6\",policy=\"inner\"} 0
# TYPE kubeproxy_took histogram
kubeproxy_took_bucket{ip_family=\"IPv4\",le=\"0.5\"} 1
kubeproxy_took_bucket{ip_family=\"IPv4\",le=\"+Inf\"} 3
kubeproxy_took_sum{ip_family=\"IPv4\"} 1.5e+01
kubeproxy_took_count{ip_family=\"IPv4\"} 3
# TYPE kubeproxy_took_total counter
kubeproxy_took_total 7
broken{ 1
";

    fn growth(after: &str, series: &str, by: Option<&str>) -> String {
        let series = Series::parse(series).unwrap();
        Scrape::parse(after).growth(&Scrape::parse(BEFORE), &series, by)
    }

    #[test]
    fn growth_is_by_series_or_by_a_label() {
        let after = BEFORE
            .replace("\"outer\"} 2", "\"outer\"} 5")
            .replace("_count{ip_family=\"IPv4\"} 3", "_count{ip_family=\"IPv4\"} 4");
        assert_eq!(growth(&after, "lacks ip_family=IPv4", Some("policy")), "inner +0, outer +3");
        assert_eq!(growth(&after, "lacks policy=inner", None), "+0");
        assert_eq!(growth(&after, "lacks", None), "+3");
        assert_eq!(growth(&after, "took_count ip_family=IPv4", None), "+1");
        assert_eq!(growth(&after, "took_count ip_family=IPv6", None), "absent");
        assert_eq!(growth("kubeproxy_new 2\n", "new", None), "+2");
        assert!(Series::parse("lacks policy").is_err());
    }

    #[test]
    fn a_kind_is_type_labels_and_buckets() {
        let scrape = Scrape::parse(BEFORE);
        let kind = |name: &str| scrape.kind(&format!("{PREFIX}{name}"));
        assert_eq!(kind("lacks"), "gauge, ip_family IPv4 IPv6, policy inner outer");
        assert_eq!(kind("took"), "histogram, ip_family IPv4, 2 buckets");
        assert_eq!(kind("took_total"), "counter");
        assert_eq!(kind("none"), "absent");
    }
}
