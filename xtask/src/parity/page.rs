//! `docs/parity.md`: every id, generated.
//!
//! What a run writes is what the data says must be seen, as long as nothing differs; so the page
//! can be compared with the data without a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    case::Case,
    ids::{self, Id},
    report::{Comparison, Row},
};

/// The page.
pub(super) const PATH: &str = "docs/parity.md";

const INTRO: &str = "\
# Parity with kube-proxy
Every behaviour of kube-proxy 1.36.3 by its id, as `cargo xtask parity` sees it on kproxy and on the
real kube-proxy (nftables mode; iptables mode too where the two differ) with the same objects of the
same API server. `cargo xtask parity --write-docs` writes this page.

✅ the same · ⬆ better, [on purpose](improvements.md) · ⚠ differs
";

const WITHOUT: &str = "
## Without a case
What no probe can show, and why; where a test shows it, the test's name.

| id | behaviour | reason | test |
|---|---|---|---|
";

/// The page of a run.
pub(super) fn of_rows(rows: &[Row], ids: &[Id]) -> String {
    let marks = rows.iter().map(|row| (row.id.as_str(), row.verdict)).collect();
    render(&marks, ids)
}

/// The page as it is when every case shows what it must.
pub(super) fn of_data(ids: &[Id], cases: &[Case]) -> String {
    let better = better(ids, cases);
    let verdict = |id: &'_ Id| {
        ids::cases_of(&id.id, cases).next()?;
        Some(if better.contains(id.id.as_str()) { Comparison::Better } else { Comparison::Same })
    };
    let marks = ids.iter().filter_map(|id| Some((id.id.as_str(), verdict(id)?))).collect();
    render(&marks, ids)
}

/// Ids whose cases differ on purpose.
pub(super) fn better<'a>(ids: &'a [Id], cases: &[Case]) -> BTreeSet<&'a str> {
    let is_better = |id: &&Id| {
        ids::cases_of(&id.id, cases).any(|case| {
            case.looks().any(|(ids, see)| case.is_for(&id.id, ids) && see.differs_on_purpose())
        })
    };
    ids.iter().filter(is_better).map(|id| id.id.as_str()).collect()
}

fn render(marks: &BTreeMap<&str, Comparison>, ids: &[Id]) -> String {
    let mut text = INTRO.to_owned();
    // Writing to a String cannot fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{arguments}");
    };
    let mut area = "";
    for id in ids {
        let Some(verdict) = marks.get(id.id.as_str()) else { continue };
        let of = id.id.split('-').next().unwrap_or_default();
        if area != of {
            line(format_args!("\n## {of}\n| | id | behaviour |\n|---|---|---|"));
            area = of;
        }
        let mark = match verdict {
            Comparison::Same => "✅",
            Comparison::Better => "⬆",
            Comparison::Differs => "⚠",
        };
        line(format_args!("| {mark} | {} | {} |", id.id, id.is));
    }
    line(format_args!("{}", WITHOUT.trim_end()));
    for id in ids.iter().filter(|id| !marks.contains_key(id.id.as_str())) {
        let reason = id.reason.as_deref().unwrap_or_default();
        let test = id.shown_by.as_ref().map(|test| format!("`{test}`")).unwrap_or_default();
        line(format_args!("| {} | {} | {reason} | {test} |", id.id, id.is));
    }
    text
}

/// What is wrong with the page, if anything.
///
/// # Errors
/// When the page cannot be read.
pub(super) fn check(root: &Path, ids: &[Id], cases: &[Case]) -> Result<Option<String>> {
    let path = root.join(PATH);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(first_difference(&text, &of_data(ids, cases)).map(|line| {
        format!("{PATH}:{line}: not what the cases say; run `cargo xtask parity --write-docs`")
    }))
}

/// Number of the first line that is not what it must be. A difference that a run has seen is no
/// mistake of the page.
fn first_difference(is: &str, must: &str) -> Option<usize> {
    let right = |(is, must): (&str, &str)| {
        let seen = is.strip_prefix("| ⚠ |");
        is == must || seen.is_some_and(|rest| must.ends_with(rest))
    };
    let wrong = is.lines().zip(must.lines()).position(|pair| !right(pair));
    let (is, must) = (is.lines().count(), must.lines().count());
    wrong.or((is != must).then_some(is.min(must))).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n| ✅ | VER-01 | refused |\n| ⬆ | VER-05 | spreads |\n";

    #[test]
    fn a_page_that_is_out_of_date_is_found() {
        assert_eq!(first_difference(PAGE, PAGE), None);
        assert_eq!(first_difference(&PAGE.replace('⬆', "✅"), PAGE), Some(3));
        assert_eq!(first_difference(&PAGE.replace("refused", "dropped"), PAGE), Some(2));
        assert_eq!(first_difference("# Page\n", PAGE), Some(2));
    }

    #[test]
    fn a_difference_that_was_seen_is_no_mistake_of_the_page() {
        assert_eq!(first_difference(&PAGE.replace('✅', "⚠"), PAGE), None);
    }
}
