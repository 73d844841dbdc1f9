//! `cargo xtask tidy`: the project's own rules about its sources.
//!
//! What rustc, clippy and rustfmt can check is left to them. [`rules`] holds the rest, one function
//! a rule; each finding names the file, the line and the rule.

mod circles;
pub(crate) mod deny;
mod deploy;
mod imports;
mod layers;
mod lints;
mod module;
mod rules;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{parity, say, workspace};
use imports::Imports;
use source::Source;

/// Folders that hold Rust sources.
const CRATES: [&str; 6] =
    ["kproxy", "kproxy-build", "kproxy-common", "kproxy-ebpf", "kproxy-lab", "xtask"];

/// Checks every source.
///
/// # Errors
/// When a file cannot be read or breaks a rule.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut files = Vec::new();
    for name in CRATES {
        rust_files(&root.join(name), &mut files)?;
    }
    files.sort();
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let path = file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned();
        findings.extend(rules::check(&Source::new(&path, &text)));
        sources.push((path, text));
    }
    for name in circles::ENFORCED {
        findings.extend(circles::check(name, &imports_of(name, &sources)?));
    }
    for (name, layers) in layers::DECLARED {
        findings.extend(layers::check(name, &imports_of(name, &sources)?, layers));
    }
    findings.extend(deploy::check(&root)?);
    findings.extend(lints::check(&root)?);
    findings.extend(deny::check(&root)?);
    findings.extend(parity::check(&root, &files)?);
    for finding in &findings {
        say::line(finding);
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files", findings.len(), files.len());
    }
    say::line(format!("tidy: {} files keep the project's rules", files.len()));
    Ok(())
}

/// The imports of a crate, by the files below its `src/`.
fn imports_of(name: &str, sources: &[(String, String)]) -> Result<Imports> {
    let folder = format!("{name}/src/");
    let of_crate: Vec<(&str, &str)> = sources
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&folder)?, text.as_str())))
        .collect();
    Imports::read(&of_crate).with_context(|| format!("read the imports of {name}"))
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("list {}", dir.display());
    for entry in fs::read_dir(dir).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
