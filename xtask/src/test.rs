//! `cargo xtask test`: every check, then every test.
//!
//! Unit tests run side by side. Tests in `tests/` folders load programs, make namespaces or start
//! API servers: they need root and run one at a time, so that two of them never wait for each
//! other's processor.

use std::process::Command;

use anyhow::{Result, bail};
use kproxy_build::{Toolchain, lint_programs};

use crate::{
    deploy, docs, run, say,
    setup::{self, Scope},
    tidy, workspace,
};

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
    /// Run only the tests whose names contain one of these, and no other checks.
    filter: Vec<String>,
}

/// Runs the checks and the tests.
///
/// # Errors
/// Names what failed, after everything has run.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(options.no_install, Scope::All)?;
    let mut failed = Vec::new();
    if options.filter.is_empty() {
        failed.extend(checks());
    }
    // The lab's tests start these two by path.
    run::step("build", workspace::cargo().args(["build", "--workspace", "--bins"]))?;
    let is_root = nix::unistd::geteuid().is_root();
    for (what, selection, needs_root) in [
        ("unit tests", ["--lib", "--bins"].as_slice(), false),
        ("examples in the documentation", &["--doc"], false),
        ("tests of programs and clusters", &["--test", "*"], true),
    ] {
        say::heading(what);
        if needs_root && !is_root {
            say::line("they need root: run `sudo -E env PATH=$PATH cargo xtask test`");
            failed.push(format!("{what} (not run: they need root)"));
            continue;
        }
        if !tests(selection, &options.filter, needs_root).status()?.success() {
            failed.push(what.to_owned());
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Formatting, lints and the project's own rules; the names of those that failed.
fn checks() -> Vec<String> {
    let mut failed = Vec::new();
    if component("fmt") {
        say::heading("format");
        let mut format = |arguments: &[&str]| {
            let mut command = workspace::cargo();
            command.arg("fmt").args(arguments).arg("--check");
            if run::step("rustfmt", &mut command).is_err() {
                failed.push("rustfmt".to_owned());
            }
        };
        format(&["--all"]);
        format(&["--manifest-path", "kproxy-ebpf/Cargo.toml"]);
    } else {
        say::line("rustfmt is not installed: formatting is not checked");
    }
    if component("clippy") {
        say::heading("lints");
        let mut clippy = workspace::cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        if run::step("clippy", &mut clippy).is_err() {
            failed.push("clippy".to_owned());
        }
    } else {
        say::line("clippy is not installed: lints are not checked");
    }
    match Toolchain::detect() {
        Ok(toolchain) if toolchain.compiler.has_clippy() => {
            say::heading("lints of the programs");
            let root = workspace::root();
            // Where kproxy's build script builds them.
            let target = root.join("target/ebpf");
            let mut clippy = lint_programs(&toolchain, &root, &target);
            if run::step("clippy", &mut clippy).is_err() {
                failed.push("clippy of the programs".to_owned());
            }
        }
        _ => say::line(
            "clippy of the BPF compiler is not installed: lints of the programs are not checked",
        ),
    }
    say::heading("rules");
    if let Err(error) = tidy::run() {
        say::line(error);
        failed.push("tidy".to_owned());
    }
    say::heading("deploy");
    if let Err(error) = deploy::check_files() {
        say::line(error);
        failed.push("deploy".to_owned());
    }
    say::heading("pages");
    if let Err(error) = docs::check_pages() {
        say::line(error);
        failed.push("docs".to_owned());
    }
    say::heading("advisories");
    if let Err(error) = tidy::deny::advisories() {
        say::line(error);
        failed.push("advisories".to_owned());
    }
    failed
}

fn component(name: &str) -> bool {
    run::answer(workspace::cargo().args([name, "--version"])).is_some()
}

/// `cargo test` with its output as it is: its closing lines are the last ones of a good run.
fn tests(selection: &[&str], filter: &[String], one_at_a_time: bool) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(selection).arg("--");
    command.args(filter);
    if one_at_a_time {
        command.arg("--test-threads=1");
    }
    command
}
