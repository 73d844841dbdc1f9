//! What came of the attacks: bounds, a table, JSON.

use serde::Serialize;

/// Median and 99th percentile in microseconds.
pub(super) type Times = Option<(f64, f64)>;

/// How many times the quiet median an attack may make of the time to connect.
const SLOWER: f64 = 2.0;

/// One attack.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) scenario: String,
    pub(super) case: String,
    pub(super) daemon: String,
    /// Requests of honest clients during and after the attack, and those without an answer.
    pub(super) attempted: usize,
    pub(super) failed: usize,
    /// Connections that stood before the attack, and those that lost something.
    pub(super) standing: usize,
    pub(super) lost: usize,
    /// Time to connect before and during the attack.
    pub(super) quiet: Times,
    pub(super) attacked: Times,
    /// The same with the backend itself dialled and attacked: what the proxy has no part in.
    pub(super) direct: Option<[Times; 2]>,
    /// Packets of the attack, and how many a second.
    pub(super) sent: u64,
    pub(super) rate: f64,
    /// What is worth knowing of the lost ones.
    pub(super) note: String,
}

impl Row {
    /// How much slower connecting became.
    fn slower(&self) -> Option<f64> {
        slower(self.quiet, self.attacked)
    }

    /// How much slower it may become; only where it was measured what the backend itself can do.
    fn bound(&self) -> Option<f64> {
        let [quiet, attacked] = self.direct?;
        // A backend that is slowed down more than that does not hold itself.
        let own = slower(quiet, attacked).unwrap_or(f64::INFINITY);
        Some(if own <= SLOWER { SLOWER } else { SLOWER * own })
    }

    /// The bounds that are broken, in words.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.failed > 0 {
            broken.push(format!("{} of {} failed", self.failed, self.attempted));
        }
        if self.lost > 0 {
            broken.push(format!("{} of {} lost", self.lost, self.standing));
        }
        if self.attempted == 0 && self.standing == 0 {
            broken.push("nothing was asked".to_owned());
        }
        match (self.bound(), self.slower()) {
            (Some(bound), Some(slower)) if slower > bound => {
                broken.push(format!("connecting {slower:.1} times as slow, not {bound:.1}"));
            }
            (Some(_), None) => broken.push("nobody connected".to_owned()),
            _ => {}
        }
        broken
    }

    /// Held, or what did not.
    pub(super) fn verdict(&self) -> String {
        let broken = self.broken();
        let verdict = if broken.is_empty() {
            "held".to_owned()
        } else {
            format!("BROKEN: {}", broken.join(", "))
        };
        if self.note.is_empty() { verdict } else { format!("{verdict} ({})", self.note) }
    }
}

/// How every chaos command ends: what was done, and what came of it.
pub(super) fn last_line(faults: usize, connections: usize, failed: usize) -> String {
    format!("chaos: {faults} faults, {connections} connections, {failed} failed")
}

fn slower(quiet: Times, attacked: Times) -> Option<f64> {
    Some(attacked?.0 / quiet?.0)
}

/// A row as JSON: microseconds, null for what was not measured.
#[derive(Serialize)]
struct JsonRow<'a> {
    scenario: &'a str,
    case: &'a str,
    daemon: &'a str,
    attempted: usize,
    failed: usize,
    standing: usize,
    lost: usize,
    quiet: JsonTimes,
    attacked: JsonTimes,
    direct_quiet: JsonTimes,
    direct_attacked: JsonTimes,
    sent: u64,
    rate: f64,
    broken: Vec<String>,
    note: &'a str,
}

#[derive(Serialize)]
struct JsonTimes {
    median: Option<f64>,
    p99: Option<f64>,
}

impl From<Times> for JsonTimes {
    fn from(times: Times) -> Self {
        Self {
            median: times.map(|(median, _)| median.round()),
            p99: times.map(|(_, p99)| p99.round()),
        }
    }
}

#[derive(Serialize)]
struct JsonReport<'a> {
    rows: Vec<JsonRow<'a>>,
}

/// The rows as JSON.
///
/// # Errors
/// Never in practice: the rows hold only numbers and text.
pub(super) fn json(rows: &[Row]) -> serde_json::Result<String> {
    let rows = rows
        .iter()
        .map(|row| {
            let [direct_quiet, direct_attacked] = row.direct.unwrap_or_default();
            JsonRow {
                scenario: &row.scenario,
                case: &row.case,
                daemon: &row.daemon,
                attempted: row.attempted,
                failed: row.failed,
                standing: row.standing,
                lost: row.lost,
                quiet: row.quiet.into(),
                attacked: row.attacked.into(),
                direct_quiet: direct_quiet.into(),
                direct_attacked: direct_attacked.into(),
                sent: row.sent,
                rate: row.rate.round(),
                broken: row.broken(),
                note: &row.note,
            }
        })
        .collect();
    serde_json::to_string_pretty(&JsonReport { rows })
}

/// The rows as a table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut title = (String::new(), String::new());
    for row in rows {
        if (&row.scenario, &row.case) != (&title.0, &title.1) {
            title = (row.scenario.clone(), row.case.clone());
            text += &format!(
                "\n{}: {}\n  {:<7}{:>10}{:>7}{:>9}{:>5}{:>13}{:>16}{:>11}\n",
                row.scenario,
                row.case,
                "daemon",
                "attempted",
                "failed",
                "standing",
                "lost",
                "quiet µs",
                "attacked µs",
                "packets/s",
            );
        }
        text += &format!(
            "  {:<7}{:>10}{:>7}{:>9}{:>5}{:>13}{:>16}{:>11}\n",
            row.daemon,
            row.attempted,
            row.failed,
            row.standing,
            row.lost,
            times(row.quiet),
            times(row.attacked),
            if row.rate > 0.0 { format!("{:.0}", row.rate) } else { "-".to_owned() },
        );
        if let Some([quiet, attacked]) = row.direct {
            text += &format!(
                "  {:<38}{:>13}{:>16}\n",
                "  the backend itself",
                times(quiet),
                times(attacked)
            );
        }
        text += &format!("  {:<7}{}\n", "", row.verdict());
    }
    text += "\nTimes are median/99th percentile until a connection stands.\n";
    text
}

fn times(times: Times) -> String {
    times.map_or_else(|| "-".to_owned(), |(median, p99)| format!("{median:.0}/{p99:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            scenario: "syn".to_owned(),
            case: "backend elsewhere, IPv4".to_owned(),
            daemon: "killed".to_owned(),
            attempted: 8000,
            standing: 24,
            quiet: Some((100.0, 900.0)),
            attacked: Some((190.0, 12_000.0)),
            direct: Some([Some((90.0, 800.0)), Some((150.0, 9000.0))]),
            sent: 3_000_000,
            rate: 99_999.6,
            ..Row::default()
        }
    }

    #[test]
    fn what_fails_is_lost_or_becomes_slow_breaks_a_bound() {
        assert!(row().broken().is_empty());
        assert_eq!(Row { failed: 2, ..row() }.broken(), ["2 of 8000 failed"]);
        assert_eq!(Row { lost: 1, ..row() }.broken(), ["1 of 24 lost"]);
        let slow = Row { attacked: Some((210.0, 0.0)), ..row() };
        assert_eq!(slow.broken(), ["connecting 2.1 times as slow, not 2.0"]);
        assert_eq!(Row { attacked: None, ..row() }.broken(), ["nobody connected"]);
        assert_eq!(Row::default().broken(), ["nothing was asked"]);
    }

    #[test]
    fn a_backend_that_does_not_hold_itself_widens_the_bound() {
        let direct = Some([Some((90.0, 0.0)), Some((900.0, 0.0))]);
        let slow = Row { attacked: Some((1900.0, 0.0)), direct, ..row() };
        assert!(slow.broken().is_empty());
        let slower = Row { attacked: Some((2100.0, 0.0)), ..slow };
        assert_eq!(slower.broken(), ["connecting 21.0 times as slow, not 20.0"]);
    }

    #[test]
    fn the_table_fits_80_columns_and_json_has_null_for_what_was_not_measured() {
        let rows = [row(), Row { direct: None, lost: 3, ..row() }];
        let text = table(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.matches("syn: backend").count(), 1, "{text}");
        let value: serde_json::Value = serde_json::from_str(&json(&rows).unwrap()).unwrap();
        assert_eq!(value["rows"][0]["rate"], 100_000.0);
        assert!(value["rows"][1]["direct_quiet"]["median"].is_null());
        assert_eq!(value["rows"][1]["broken"][0], "3 of 24 lost");
    }
}
