//! `cargo xtask deploy`: what `deploy/` has for operators, rendered and checked.
//!
//! ```text
//! files, promql, rules, dashboard, schema   what needs no other program; in `cargo xtask test`, too
//! kustomize, helm                           the real programs, built from their Go modules at first use
//! daemon                                    arguments and configuration read by kproxy
//! cluster                                   each rendering given to the real API server
//! ```

mod cluster;
mod daemon;
mod dashboard;
mod files;
mod helm;
mod kustomize;
mod promql;
mod registry;
mod rendering;
mod report;
mod rules;
mod schema;

use std::path::Path;

use anyhow::Result;

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
        say::heading("By kproxy and the API server");
        daemon::check(&folder, &renderings, &mut report);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_deploy_is_in_order() {
        let mut report = Report::default();
        offline(&workspace::root(), &mut report);
        report.end().unwrap();
    }
}
