//! The figures: as a table and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan::Variant;
use crate::stats;

/// All figures of one path and work.
#[derive(Debug)]
pub(super) struct Row {
    /// The path.
    pub(super) path: &'static str,
    /// The work.
    pub(super) work: &'static str,
    /// Unit of the figures.
    pub(super) unit: &'static str,
    /// One figure a round.
    pub(super) figures: BTreeMap<Variant, Vec<f64>>,
}

/// A row as JSON: medians, null where a variant was not measured.
#[derive(Serialize)]
struct JsonRow {
    path: &'static str,
    work: &'static str,
    unit: &'static str,
    direct: Option<f64>,
    nftables: Option<f64>,
    iptables: Option<f64>,
    kproxy: Option<f64>,
    /// The widest distance between quartiles, as a part of the median.
    spread: Option<f64>,
}

#[derive(Serialize)]
struct JsonReport {
    rows: Vec<JsonRow>,
}

impl Row {
    fn median(&self, variant: Variant) -> Option<f64> {
        stats::median(self.figures.get(&variant)?)
    }

    fn spread(&self) -> Option<f64> {
        let spreads = self.figures.values().filter_map(|figures| stats::spread(figures));
        spreads.max_by(f64::total_cmp)
    }

    /// How many times as long kproxy takes as another variant.
    fn ratio(&self, to: Variant) -> Option<f64> {
        Some(self.median(Variant::Kproxy)? / self.median(to)?)
    }
}

/// The rows as JSON.
///
/// # Errors
/// Never in practice: the rows hold only numbers and text.
pub(super) fn json(rows: &[Row]) -> serde_json::Result<String> {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let rows = rows
        .iter()
        .map(|row| JsonRow {
            path: row.path,
            work: row.work,
            unit: row.unit,
            direct: row.median(Variant::Direct).map(round),
            nftables: row.median(Variant::Nftables).map(round),
            iptables: row.median(Variant::Iptables).map(round),
            kproxy: row.median(Variant::Kproxy).map(round),
            spread: row.spread().map(round),
        })
        .collect();
    serde_json::to_string_pretty(&JsonReport { rows })
}

/// The rows as a table of 80 columns, less is better everywhere.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut path = "";
    for row in rows {
        if row.path != path {
            path = row.path;
            text += &format!(
                "\n{path}\n  {:<24}{:>8}{:>9}{:>9}{:>8}{:>9}{:>9}\n",
                "", "direct", "nftables", "iptables", "kproxy", "/direct", "/nft"
            );
        }
        let figure = |variant| {
            row.median(variant).map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
        };
        let ratio =
            |to| row.ratio(to).map_or_else(|| "-".to_owned(), |value| format!("{value:.2}×"));
        text += &format!(
            "  {:<24}{:>8}{:>9}{:>9}{:>8}{:>9}{:>9}\n",
            format!("{} ({})", row.work, row.unit)
                .replace("connect/request/close", "connect/request"),
            figure(Variant::Direct),
            figure(Variant::Nftables),
            figure(Variant::Iptables),
            figure(Variant::Kproxy),
            ratio(Variant::Direct),
            ratio(Variant::Nftables),
        );
    }
    let widest = rows.iter().filter_map(Row::spread).max_by(f64::total_cmp).unwrap_or_default();
    text += &format!(
        "\nMedians; less is better. Widest spread between quartiles: {:.0} %.\n",
        widest * 100.0
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let figures = BTreeMap::from([
            (Variant::Direct, vec![50.0, 52.0, 51.0]),
            (Variant::Nftables, vec![60.0, 60.0, 60.0]),
            (Variant::Kproxy, vec![52.0, 51.0, 52.0]),
        ]);
        Row { path: "pod→ClusterIP", work: "connect/request/close", unit: "µs", figures }
    }

    #[test]
    fn json_holds_medians_and_null_for_what_was_not_measured() {
        let text = json(&[row()]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let row = &value["rows"][0];
        assert_eq!(row["direct"], 51.0);
        assert!(row["iptables"].is_null());
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 8, "{keys:?}");
    }

    #[test]
    fn the_table_shows_ratios_and_fits_80_columns() {
        let text = table(&[row()]);
        assert!(text.contains("1.02×") && text.contains("0.87×"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
