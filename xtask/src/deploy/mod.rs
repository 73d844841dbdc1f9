//! `cargo xtask deploy`: what `deploy/` has for operators, rendered and checked.
//!
//! ```text
//! files, promql, rules, dashboard, schema   what needs no other program; in `cargo xtask test`, too
//! kustomize, helm                           the real programs, built from their Go modules at first use
//! cluster                                   each rendering given to the real API server
//! ```

mod cluster;
mod dashboard;
mod files;
mod helm;
mod kustomize;
mod promql;
mod registry;
mod report;
mod rules;
mod schema;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    prepare, say,
    setup::{self, Scope},
    workspace,
};
use report::Report;

/// Options of `cargo xtask deploy`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Check everything, on the API server of a lab, too; else only render into target/deploy.
    #[arg(long)]
    check: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Renders, and checks when asked to.
///
/// # Errors
/// When something cannot be built or rendered, or a check fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        prepare::programs(options.no_install, Scope::All)?;
        kproxy_lab::clean_on_signals()?;
    } else {
        setup::ensure(options.no_install, Scope::All)?;
    }
    let root = workspace::root();
    let mut report = Report::default();
    if options.check {
        say::heading("What stands in deploy/");
        offline(&root, &mut report);
    }
    say::heading("Renderings");
    let mut renderings = kustomize::render_all(&root, &mut report)?;
    renderings.extend(helm::check(&root, &mut report)?);
    let folder = root.join("target/deploy");
    for rendering in &renderings {
        rendering.write(&folder)?;
    }
    say::line(format!("written to {}", folder.display()));
    if options.check {
        say::heading("On the API server");
        cluster::check(&renderings, &mut report)?;
    }
    report.end()
}

/// What needs no other program.
///
/// # Errors
/// When one of the checks fails.
pub(crate) fn check_files() -> Result<()> {
    let mut report = Report::default();
    offline(&workspace::root(), &mut report);
    report.end()
}

fn offline(root: &Path, report: &mut Report) {
    files::check(root, report);
    match registry::Registry::read(root) {
        Ok(registry) => {
            rules::check(root, &registry, report);
            dashboard::check(root, &registry, report);
        }
        Err(error) => report.note("metrics", Err::<&str, _>(error)),
    }
    schema::check(root, report);
}

/// Objects as an operator applies them.
struct Rendering {
    /// Short, and the name of its file.
    name: String,
    objects: Vec<Value>,
    /// It changes objects of others, and is applied by server-side apply alone.
    partial: bool,
}

impl Rendering {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let objects = documents(text).with_context(|| format!("read the rendering {name}"))?;
        if objects.is_empty() {
            bail!("the rendering {name} has no object");
        }
        Ok(Self { name: name.to_owned(), objects, partial: false })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.yaml", self.name));
        let text = kproxy_lab::manifest::yaml(self.objects.iter().cloned())?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Its objects without the Namespace, in the order of their names.
    fn sorted(&self, with_namespace: bool) -> Vec<&Value> {
        let mut objects: Vec<_> = self
            .objects
            .iter()
            .filter(|object| with_namespace || object["kind"] != "Namespace")
            .collect();
        objects.sort_by_key(|object| name_of(object));
        objects
    }
}

/// The objects of a YAML text.
fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// `Kind namespace/name`.
fn name_of(object: &Value) -> String {
    let word = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (word("/kind"), word("/metadata/name"));
    format!("{kind} {}/{name}", word("/metadata/namespace"))
}

/// Says where two lists of objects differ.
fn compare(ours: &[&Value], base: &[&Value]) -> Result<String> {
    let names = |list: &[&Value]| list.iter().map(|object| name_of(object)).collect::<Vec<_>>();
    let (left, right) = (names(ours), names(base));
    if left != right {
        bail!("the objects are {left:?}, not {right:?}");
    }
    for (left, right) in ours.iter().zip(base) {
        if left != right {
            let patch = json_patch::diff(right, left);
            bail!("{}: {}", name_of(left), serde_json::to_string(&patch)?);
        }
    }
    Ok(format!("{} objects alike", ours.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_deploy_is_in_order() {
        let mut report = Report::default();
        offline(&workspace::root(), &mut report);
        report.end().unwrap();
    }

    #[test]
    fn a_difference_is_named() {
        let one = serde_json::json!({"kind": "A", "metadata": {"name": "x"}, "spec": {"a": 1}});
        let mut other = one.clone();
        assert!(compare(&[&one], &[&other]).is_ok());
        other["spec"]["a"] = 2.into();
        let said = compare(&[&one], &[&other]).unwrap_err().to_string();
        assert!(said.contains("A /x") && said.contains("/spec/a"), "{said}");
        assert!(compare(&[], &[&one]).is_err());
    }
}
