//! What can be checked about the cases without playing them.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{ids, improvements, page, read, settings};

/// All findings: about ids, settings, documented differences, tests that are named, and the page.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn check(root: &Path, sources: &[std::path::PathBuf]) -> Result<Vec<String>> {
    let (ids, cases, settings) = (ids::read()?, read::all()?, settings::read()?);
    let mut findings = Vec::new();
    if let Err(error) = ids::check(&ids, &cases) {
        findings.push(format!("parity: {error:#}"));
    }
    for case in cases.iter().filter(|case| !settings.contains_key(&case.settings)) {
        findings.push(format!("parity: case {}: no settings `{}`", case.name, case.settings));
    }
    let documented = improvements::read()?;
    let better = page::better(&ids, &cases);
    for id in better.iter().filter(|id| !documented.contains_key(**id)) {
        findings.push(format!("parity: {id} differs on purpose and is not in improvements.md"));
    }
    let has_case = |id: &str| ids::cases_of(id, &cases).next().is_some();
    let idle = |id: &&String| has_case(id) && !better.contains(id.as_str());
    for id in documented.keys().filter(idle) {
        findings.push(format!("docs/improvements.md: no case of {id} differs on purpose"));
    }
    let tests: Vec<&str> = ids.iter().filter_map(|id| id.shown_by.as_deref()).collect();
    let known = functions(sources)?;
    for test in tests.iter().filter(|test| !known.contains(**test)) {
        findings.push(format!("cases/ids.yaml: there is no test `{test}`"));
    }
    findings.extend(page::check(root, &ids, &cases)?);
    Ok(findings)
}

/// Names of the tests in the sources: functions below `#[test]` or a macro of that kind.
fn functions(sources: &[std::path::PathBuf]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in sources {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        names.extend(tests_in(&text));
    }
    Ok(names)
}

fn tests_in(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")) else {
            continue;
        };
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        if is_test {
            names.insert(name.to_owned());
        }
        is_test = false;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_count_as_tests() {
        let found = tests_in("fn helper() {}\n#[test]\nfn ver_01_is_refused() {}\nfn other() {}\n");
        assert_eq!(found, ["ver_01_is_refused".to_owned()].into());
    }
}
