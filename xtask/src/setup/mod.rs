//! `cargo xtask setup`: installs what building and testing take, and says so first.
//!
//! ```text
//! facts (look at the machine) ─▶ plan (pure) ─▶ report ─▶ run
//! ```
//!
//! Nothing that is present is installed again. Without root, or with `--no-install`, nothing but
//! the report is made of the steps that need it.

mod apt;
mod facts;
mod go;
mod plan;
mod scope;
mod step;

use anyhow::{Result, bail};
use kproxy_lab::kubernetes;

use crate::{run, say};
use facts::Facts;
use plan::Plan;
pub(crate) use scope::Scope;
use step::Step;

/// Options of `cargo xtask setup`.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Only report what is missing; fail if anything is.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Installs what is missing.
///
/// # Errors
/// When something is missing and cannot be installed, or must not be.
pub(crate) fn run(options: &Options) -> Result<()> {
    install(options.no_install, Scope::All)
}

fn install(no_install: bool, scope: Scope) -> Result<()> {
    let mut plan = look(no_install, scope)?;
    report(&plan);
    if plan.is_empty() {
        return programs_of_kubernetes(no_install, scope);
    }
    if no_install {
        bail!("the above is missing; run `cargo xtask setup` to install it");
    }
    let is_root = nix::unistd::geteuid().is_root();
    for step in plan.steps.iter().filter(|step| is_root || !step.root) {
        perform(step)?;
    }
    plan = plan::plan(&Facts::collect(), scope);
    if !is_root && plan.steps.iter().any(|step| step.root) {
        say::heading("These need root; run them, then this command again");
        for command in plan.steps.iter().filter(|step| step.root).flat_map(|s| &s.commands) {
            say::line(format!("sudo {}", run::command_line(&command.build())));
        }
        bail!("set-up is not complete: some steps need root");
    }
    if let Some(missing) = plan.impossible.first() {
        bail!("set-up is not complete: {missing}");
    }
    if let Some(step) = plan.steps.first() {
        bail!("set-up is not complete: {} is still missing after its installation", step.what);
    }
    programs_of_kubernetes(no_install, scope)
}

/// Makes sure that everything in `scope` is there; silent when it is.
///
/// # Errors
/// As [`run`].
pub(crate) fn ensure(no_install: bool, scope: Scope) -> Result<()> {
    if plan::plan(&Facts::collect(), scope).is_empty() {
        return programs_of_kubernetes(no_install, scope);
    }
    install(no_install, scope)
}

/// Builds the programs of Kubernetes that are not there.
fn programs_of_kubernetes(no_install: bool, scope: Scope) -> Result<()> {
    let missing = kubernetes::not_built();
    if scope != Scope::All || missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    if no_install {
        bail!("not built: {missing}; run `cargo xtask setup`");
    }
    say::heading(format!("Building {missing} (once, about 10 minutes for all)"));
    kubernetes::build_all()
}

/// The plan; refreshes the distribution's package lists first if they offer nothing.
fn look(no_install: bool, scope: Scope) -> Result<Plan> {
    let facts = Facts::collect();
    let lists_are_empty = facts.apt.as_ref().is_some_and(apt::Apt::is_empty);
    if lists_are_empty && facts.root && !no_install {
        say::heading("Refreshing the package lists (apt-get update)");
        run::step("refresh the package lists", &mut apt::update())?;
        return Ok(plan::plan(&Facts::collect(), scope));
    }
    Ok(plan::plan(&facts, scope))
}

fn report(plan: &Plan) {
    say::heading("Set-up");
    for (what, found) in &plan.present {
        say::line(format!("have  {what:<22} {found}"));
    }
    for step in &plan.steps {
        say::line(format!("need  {:<22} {}", step.what, step.why));
    }
    for missing in &plan.impossible {
        say::line(format!("need  {missing}"));
    }
    if plan.steps.is_empty() {
        return;
    }
    say::heading("To be run");
    for step in &plan.steps {
        for command in &step.commands {
            say::line(run::command_line(&command.build()));
        }
    }
}

fn perform(step: &Step) -> Result<()> {
    let slow = step.slow.map(|time| format!(" ({time})")).unwrap_or_default();
    say::heading(format!("Installing {}{slow}", step.what));
    for command in &step.commands {
        run::step(&format!("install {}", step.what), &mut command.build())?;
    }
    Ok(())
}
