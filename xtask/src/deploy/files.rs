//! The files of `deploy/`: YAML that can be read, and kustomizations whose files are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{rendering::documents, report::Report};

/// Name of the file that makes a folder one of Kustomize.
pub(super) const KUSTOMIZATION: &str = "kustomization.yaml";
/// Templates are no YAML before they are rendered.
const TEMPLATES: &str = "templates";

pub(super) fn check(root: &Path, report: &mut Report) {
    let read = yaml_files(&root.join("deploy")).and_then(|files| {
        let mut manifests = 0;
        for file in &files {
            let text = read(file)?;
            let objects = documents(&text).with_context(|| format!("read {}", file.display()))?;
            let is_manifest = |object: &&Value| object.get("kind").is_some();
            manifests += objects.iter().filter(is_manifest).count();
        }
        Ok((files.len(), manifests))
    });
    if let Ok((_, manifests)) = read {
        report.count(manifests);
    }
    report.note("YAML", read.map(|(files, _)| format!("{files} files")));
    let folders = kustomizations(root).and_then(|folders| {
        folders.iter().try_for_each(|folder| kustomization(folder))?;
        reached(root, &folders)?;
        Ok(format!("{} folders, and every file that they name", folders.len()))
    });
    report.note("kustomizations", folders);
    report.note("links", links(root));
}

/// Every folder with a kustomization.
pub(super) fn kustomizations(root: &Path) -> Result<Vec<PathBuf>> {
    let files = yaml_files(&root.join("deploy"))?;
    let of = files.into_iter().filter(|file| file.ends_with(KUSTOMIZATION));
    Ok(of.filter_map(|file| file.parent().map(Path::to_owned)).collect())
}

/// The YAML files below a folder, without templates, in order; those that are links to others left out.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = all_files(folder)?
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "yaml") && !file.is_symlink())
        .filter(|file| !file.components().any(|part| part.as_os_str() == TEMPLATES))
        .collect();
    files.sort();
    Ok(files)
}

fn all_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            files.extend(all_files(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// A manifest stands once: what a chart or kubeadm want elsewhere is a link, and leads somewhere.
fn links(root: &Path) -> Result<String> {
    let mut count = 0;
    for file in all_files(&root.join("deploy"))?.iter().filter(|file| file.is_symlink()) {
        let target = file.canonicalize().with_context(|| format!("follow {}", file.display()))?;
        ensure!(target.starts_with(root.canonicalize()?), "{} leads out", file.display());
        count += 1;
    }
    Ok(format!("{count} lead to files of the repository"))
}

fn kustomization(folder: &Path) -> Result<()> {
    let path = folder.join(KUSTOMIZATION);
    let fail = || format!("{}", path.display());
    let [object] = <[Value; 1]>::try_from(documents(&read(&path)?).with_context(fail)?)
        .map_err(|all| anyhow::anyhow!("{}: {} documents, not one", path.display(), all.len()))?;
    ensure!(object["kind"] == "Kustomization", "{}: kind {}", path.display(), object["kind"]);
    let resources = resources(&object, folder);
    ensure!(!resources.is_empty(), "{}: no resources", path.display());
    for resource in resources {
        let there = resource.is_file() || resource.join(KUSTOMIZATION).is_file();
        ensure!(there, "{}: there is no {}", path.display(), resource.display());
    }
    for patch in object["patches"].as_array().into_iter().flatten() {
        if let Some(file) = patch["path"].as_str() {
            ensure!(folder.join(file).is_file(), "{}: there is no {file}", path.display());
        } else if let Some(text) = patch["patch"].as_str() {
            documents(text).with_context(fail)?;
        } else {
            bail!("{}: a patch without path and text", path.display());
        }
    }
    Ok(())
}

fn resources(kustomization: &Value, folder: &Path) -> Vec<PathBuf> {
    let names = kustomization["resources"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).map(|name| folder.join(name)).collect()
}

/// Every overlay is named in the guide.
fn reached(root: &Path, folders: &[PathBuf]) -> Result<()> {
    let guide = read(&root.join("docs/install.md"))?;
    let mut named = BTreeSet::new();
    for folder in folders.iter().filter(|folder| !folder.ends_with("deploy/base")) {
        let name = folder.strip_prefix(root).unwrap_or(folder).display().to_string();
        let is_named = guide.contains(&format!("-k {name}"));
        ensure!(is_named, "docs/install.md does not say `kubectl apply -k {name}`");
        named.insert(name);
    }
    ensure!(named.contains("deploy"), "there is no kustomization in deploy");
    Ok(())
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
