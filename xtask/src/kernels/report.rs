//! The table of kernels and features, and what is held to the budgets.

use super::{features::FEATURES, outcome::Outcome};

/// Kernel × feature, then what was run on each.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![row("", outcomes, |outcome| outcome.release.clone(), "without it")];
    rows.push(vec!["---".to_owned(); outcomes.len() + 2]);
    for feature in &FEATURES {
        let answer = |outcome: &Outcome| match feature.is_in(&outcome.facts) {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => "?".to_owned(),
        };
        rows.push(row(feature.name, outcomes, answer, feature.without));
    }
    let counted = |all: &[(String, bool)]| {
        let passed = all.iter().filter(|(_, passed)| *passed).count();
        format!("{passed} of {}", all.len())
    };
    rows.push(row("programs loaded", outcomes, |o| o.programs.to_string(), ""));
    rows.push(row("most instructions walked", outcomes, most, "the kernel's limit: 1,000,000"));
    rows.push(row("modes", outcomes, |o| counted(&o.modes), ""));
    let packets = |o: &Outcome| format!("{} of {}", o.rows.0, o.rows.0 + o.rows.1);
    rows.push(row("rows of packets", outcomes, packets, ""));
    rows.push(row("tests of the lab", outcomes, |o| counted(&o.lab), ""));
    rows.into_iter().map(|words| format!("| {} |\n", words.join(" | "))).collect()
}

fn most(outcome: &Outcome) -> String {
    outcome
        .most_walked()
        .map_or("not told".to_owned(), |(name, instructions)| format!("{instructions} (`{name}`)"))
}

fn row(
    name: &str,
    outcomes: &[Outcome],
    cell: impl Fn(&Outcome) -> String,
    without: &str,
) -> Vec<String> {
    let cells = outcomes.iter().map(cell);
    std::iter::once(name.to_owned()).chain(cells).chain([without.to_owned()]).collect()
}

/// `kernels: 4 kernels, 24 modes, 76 programs, 408 rows, 16 tests of the lab, 0 failed`.
pub(super) fn summary(outcomes: &[Outcome], failed: u64) -> String {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    format!(
        "kernels: {} kernels, {} modes, {} programs, {} rows, {} tests of the lab, {failed} failed",
        outcomes.len(),
        sum(|o| o.modes.len() as u64),
        sum(|o| o.programs as u64),
        sum(|o| o.rows.0 + o.rows.1),
        sum(|o| o.lab.len() as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_has_a_column() {
        let outcome = |release: &str| Outcome {
            release: release.to_owned(),
            programs: 19,
            modes: vec![("all/bpf".to_owned(), true), ("none/bpf".to_owned(), false)],
            rows: (100, 1),
            ..Outcome::default()
        };
        let outcomes = [outcome("5.10.0"), outcome("6.1.0")];
        let table = table(&outcomes);
        assert!(table.starts_with("|  | 5.10.0 | 6.1.0 | without it |\n"), "{table}");
        assert!(table.contains("| modes | 1 of 2 | 1 of 2 |"), "{table}");
        let columns = |line: &str| line.matches(" |").count();
        assert!(table.lines().all(|line| columns(line) == 4), "{table}");
        let wanted =
            "kernels: 2 kernels, 4 modes, 38 programs, 202 rows, 0 tests of the lab, 3 failed";
        assert_eq!(summary(&outcomes, 3), wanted);
    }
}
