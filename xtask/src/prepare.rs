//! What every command on a lab needs first.

use anyhow::{Result, bail};

use crate::{
    run, say,
    setup::{self, Scope},
    workspace,
};

/// Sets up the machine and builds the programs that labs run.
///
/// # Errors
/// When something is missing, a build fails, or without root.
pub(crate) fn programs(no_install: bool, scope: Scope) -> Result<()> {
    setup::ensure(no_install, scope)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces: run `sudo -E env PATH=$PATH cargo xtask …`");
    }
    say::heading("Building kproxy and the lab");
    let mut build = workspace::cargo();
    build.args(["build", "--package", "kproxy", "--package", "kproxy-lab"]);
    run::step("build", &mut build)
}
