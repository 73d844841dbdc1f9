//! What the project depends on, held to `deny.toml`: licences, banned and several versions, sources.
//!
//! The file is cargo-deny's own, whose licences, bans and sources these rules are; so that every run of the tests
//! can look, they need nothing but what cargo has fetched to build. Advisories are cargo-deny's alone.

mod rules;
mod settings;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::{run, say, workspace};
use rules::{Graph, Package};
use settings::Settings;

const FILE: &str = "deny.toml";
/// The workspace, and that of the programs.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "kproxy-ebpf/Cargo.toml"];

/// All findings.
///
/// # Errors
/// When the file or a dependency graph cannot be read.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(FILE)).with_context(|| format!("read {FILE}"))?;
    let settings: Settings = toml::from_str(&text).with_context(|| format!("read {FILE}"))?;
    let graphs = MANIFESTS
        .iter()
        .map(|manifest| graph(root, manifest, &settings.graph.targets))
        .collect::<Result<Vec<_>>>()?;
    rules::check(&settings, &graphs)
}

/// Asks cargo-deny for advisories, where it is and reaches its database; says so where not.
///
/// # Errors
/// There is an advisory on what is depended on.
pub(crate) fn advisories() -> Result<()> {
    let deny = |arguments: &[&str]| {
        let mut command = workspace::cargo();
        command.arg("deny").args(arguments);
        command
    };
    if run::answer(&mut deny(&["--version"])).is_none() {
        say::line("cargo-deny is not installed: advisories are not checked");
        return Ok(());
    }
    if run::answer(&mut deny(&["fetch", "db"])).is_none() {
        say::line("the database of advisories cannot be reached: advisories are not checked");
        return Ok(());
    }
    run::step("cargo deny", &mut deny(&["check", "advisories"]))
}

/// What a manifest depends on, on these targets.
fn graph(root: &Path, manifest: &str, targets: &[String]) -> Result<Graph> {
    let mut command = workspace::cargo();
    command.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    command.arg(root.join(manifest));
    for target in targets {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().context("run cargo metadata")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("cargo metadata of {manifest}: {}", why.trim());
    }
    let text = String::from_utf8(output.stdout).context("read what cargo metadata says")?;
    let metadata = MetadataCommand::parse(&text)
        .with_context(|| format!("read the dependencies of {manifest}"))?;
    Ok(Graph { manifest: manifest.to_owned(), packages: packages(metadata) })
}

fn packages(metadata: Metadata) -> Vec<Package> {
    let resolved = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let used: Vec<_> = resolved.map(|node| node.id.clone()).collect();
    let packages = metadata.packages.into_iter().filter(|package| used.contains(&package.id));
    packages
        .map(|package| Package {
            wildcards: package
                .dependencies
                .iter()
                .filter(|dependency| dependency.req.comparators.is_empty())
                .map(|dependency| (dependency.name.clone(), dependency.path.is_some()))
                .collect(),
            name: package.name.to_string(),
            version: package.version,
            license: package.license,
            source: package.source.map(|source| source.repr),
        })
        .collect()
}
