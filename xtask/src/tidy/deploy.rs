//! Values that stand in more than one file of `deploy/`.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use kproxy_build::LINKER_VERSION;
use serde_json::Value;

const MANIFESTS: &str = "deploy/kproxy.yaml";
const UNIT: &str = "deploy/kproxy.service";
const DOCKERFILE: &str = "deploy/Dockerfile";

/// All findings.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let read = |name| fs::read_to_string(root.join(name)).with_context(|| format!("read {name}"));
    let mut findings = Vec::new();
    let manifests = read(MANIFESTS)?;
    let (granted, unit) = (capabilities(&manifests)?, capabilities_of_unit(&read(UNIT)?));
    if granted != unit {
        findings.push(format!("{UNIT}: grants {unit:?}, but {MANIFESTS} {granted:?}"));
    }
    findings.extend(without_reason(&manifests, &granted));
    if !read(DOCKERFILE)?.contains(&format!("--version {LINKER_VERSION} ")) {
        findings.push(format!("{DOCKERFILE}: does not install bpf-linker {LINKER_VERSION}"));
    }
    Ok(findings)
}

/// What the DaemonSet's containers may do.
fn capabilities(manifests: &str) -> Result<BTreeSet<String>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(manifests).with_context(|| format!("read {MANIFESTS}"))?;
    let containers =
        documents.iter().filter_map(|document| document.pointer("/spec/template/spec/containers"));
    let added = containers
        .flat_map(|containers| containers.as_array().into_iter().flatten())
        .filter_map(|container| container.pointer("/securityContext/capabilities/add"));
    let names = added.flat_map(|added| added.as_array().into_iter().flatten());
    Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn capabilities_of_unit(unit: &str) -> BTreeSet<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let words = lines.flat_map(str::split_whitespace);
    words.map(|word| word.trim_start_matches("CAP_").to_owned()).collect()
}

/// Each capability has a comment above it that says what it is for.
fn without_reason(manifests: &str, capabilities: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = manifests.lines().map(str::trim).collect();
    for (index, line) in lines.iter().enumerate() {
        let named = line.strip_prefix("- ").is_some_and(|name| capabilities.contains(name));
        let reason = index.checked_sub(1).is_some_and(|before| lines[before].starts_with('#'));
        if named && !reason {
            findings.push(format!("{MANIFESTS}:{}: no reason for `{line}`", index + 1));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_both_files() {
        let manifests = "kind: DaemonSet\nspec: {template: {spec: {containers: [{securityContext: \
                         {capabilities: {drop: [ALL], add: [BPF, NET_ADMIN]}}}]}}}\n";
        let unit = "[Service]\nCapabilityBoundingSet=CAP_NET_ADMIN CAP_BPF\n";
        assert_eq!(capabilities(manifests).unwrap(), capabilities_of_unit(unit));
    }

    #[test]
    fn a_capability_without_a_reason_is_found() {
        let granted = BTreeSet::from(["BPF".to_owned(), "PERFMON".to_owned()]);
        let findings = without_reason("add:\n  # Maps.\n  - BPF\n  - PERFMON\n", &granted);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("PERFMON"), "{findings:?}");
    }
}
