//! The lints of kproxy-ebpf: a workspace of its own, which cannot inherit them.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};

const WORKSPACE: &str = "Cargo.toml";
const PROGRAMS: &str = "kproxy-ebpf/Cargo.toml";

/// All findings.
///
/// # Errors
/// When a manifest cannot be read.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let read = |name| fs::read_to_string(root.join(name)).with_context(|| format!("read {name}"));
    Ok(differences(&read(WORKSPACE)?, &read(PROGRAMS)?))
}

fn differences(workspace: &str, programs: &str) -> Vec<String> {
    let (wanted, found) = (lints(workspace, "[workspace.lints."), lints(programs, "[lints."));
    let missing = wanted.difference(&found).map(|lint| format!("{PROGRAMS}: lacks {lint}"));
    let extra =
        found.difference(&wanted).map(|lint| format!("{PROGRAMS}: {lint} is not in {WORKSPACE}"));
    missing.chain(extra).collect()
}

/// The lines of the tables whose headers begin with `prefix`: `[tool] lint = level`.
fn lints(manifest: &str, prefix: &str) -> BTreeSet<String> {
    let mut tool = None;
    let mut lints = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            tool = line.strip_prefix(prefix);
        } else if let Some(tool) = tool.filter(|_| !line.is_empty() && !line.starts_with('#')) {
            lints.insert(format!("[{tool} {line}"));
        }
    }
    lints
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace.lints.rust]\na = \"warn\"\n\n[workspace.lints.clippy]\n\
                             b = \"warn\"\n\n[profile.dev]\nc = 1\n";

    #[test]
    fn the_same_lints_are_no_finding() {
        let programs = "[profile.dev]\nc = 2\n[lints.clippy]\n# Why.\nb = \"warn\"\n[lints.rust]\n\
                        a = \"warn\"\n";
        assert_eq!(differences(WORKSPACE, programs), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_and_what_is_other_are_named() {
        let findings = differences(WORKSPACE, "[lints.rust]\na = \"allow\"\n").join("\n");
        assert!(findings.contains("lacks [rust] a = \"warn\""), "{findings}");
        assert!(findings.contains("lacks [clippy] b = \"warn\""), "{findings}");
        assert!(findings.contains("[rust] a = \"allow\" is not in Cargo.toml"), "{findings}");
    }
}
