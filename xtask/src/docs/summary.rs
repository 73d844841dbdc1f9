//! Every page is in the summary, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::links::{Link, read};

const SUMMARY: &str = "SUMMARY.md";

/// All pages below a folder, the summary left out, in order.
pub(super) fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            pages.extend(self::pages(&path)?);
        } else if path.extension().is_some_and(|end| end == "md") && !path.ends_with(SUMMARY) {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

pub(super) fn check(folder: &Path, pages: &[PathBuf]) -> Result<Vec<String>> {
    let summary = read(&folder.join(SUMMARY))?;
    let targets: Vec<PathBuf> =
        summary.links.iter().map(|Link { target, .. }| folder.join(target)).collect();
    Ok(compare(&targets, pages))
}

fn compare(targets: &[PathBuf], pages: &[PathBuf]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for target in targets {
        if !seen.insert(target) {
            findings.push(format!("{SUMMARY}: {} stands twice", target.display()));
        }
        if !pages.contains(target) {
            findings.push(format!("{SUMMARY}: there is no {}", target.display()));
        }
    }
    let missing = pages.iter().filter(|page| !seen.contains(page));
    findings.extend(missing.map(|page| format!("{} is not in {SUMMARY}", page.display())));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_missing_twice_or_strange_are_found() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let (ours, pages) = (paths(&["a.md", "a.md", "c.md"]), paths(&["a.md", "b.md"]));
        let findings = compare(&ours, &pages);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(compare(&pages, &pages).is_empty());
    }
}
