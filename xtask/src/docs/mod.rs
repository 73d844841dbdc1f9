//! `cargo xtask docs`: the book, and whether what its pages say leads somewhere.
//!
//! Every relative link leads to a file and a heading, every page is in the summary, every command line of kproxy in a
//! code block is one that the program takes (a test of kproxy parses them), and mdBook makes a book of all.

mod links;
mod summary;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use kproxy_build::tools_dir;

use crate::{
    run, say,
    setup::{self, Scope},
    workspace,
};

/// mdBook's release.
const MDBOOK_VERSION: &str = "0.5.4";

/// Options of `cargo xtask docs`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Check links, commands and summary, too; else only make the book, in target/book.
    #[arg(long)]
    check: bool,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Makes the book, and checks the pages when asked to.
///
/// # Errors
/// When mdBook cannot be built or refuses the book, or a check fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root();
    let mut last = None;
    if options.check {
        setup::ensure(options.no_install, Scope::Manifests)?;
        say::heading("Pages");
        let (pages, links) = pages(&root)?;
        say::heading("Commands");
        let commands = commands()?;
        last = Some(format!("docs: {pages} pages, {commands} commands, {links} links checked"));
    }
    say::heading("Book");
    let mdbook = mdbook(options.no_install)?;
    run::step("book", Command::new(mdbook).arg("build").arg(root.join("docs")))?;
    say::line(format!("written to {}", root.join("target/book").display()));
    if let Some(last) = last {
        println!("{last}");
    }
    Ok(())
}

/// What needs no other program.
///
/// # Errors
/// When a link leads nowhere, or a page is not in the summary.
pub(crate) fn check_pages() -> Result<()> {
    pages(&workspace::root()).map(drop)
}

/// How many pages and links there are.
fn pages(root: &Path) -> Result<(usize, usize)> {
    let pages = summary::pages(&root.join("docs"))?;
    let mut findings = summary::check(&root.join("docs"), &pages)?;
    let (links, more) = links::check(root, &pages)?;
    findings.extend(more);
    for finding in &findings {
        say::line(finding);
    }
    ensure!(findings.is_empty(), "docs: {} findings", findings.len());
    say::line(format!("{} pages in the summary, {links} links lead somewhere", pages.len()));
    Ok((pages.len(), links))
}

/// Has kproxy's own parser read the commands of the pages; how many.
fn commands() -> Result<usize> {
    let mut test = workspace::cargo();
    test.args(["test", "--quiet", "--package", "kproxy", "--lib", "--", "--nocapture"]);
    test.arg("cli::tests::pages");
    let output = test.output().context("run the test of the pages' commands")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("a command of the pages:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    // The harness writes its dots into the same line.
    let count = said.split("commands: ").nth(1).and_then(|rest| rest.lines().next());
    let count = count.with_context(|| format!("the test did not say how many: {said}"))?;
    say::line(format!("{count} are parsed by kproxy"));
    count.trim().parse().with_context(|| format!("{count} is no number"))
}

/// mdBook in the cache, built at first use.
fn mdbook(no_install: bool) -> Result<PathBuf> {
    let tools = tools_dir().context("find the cache folder: set HOME or KPROXY_CACHE")?;
    let tools = tools.join(format!("mdbook-{MDBOOK_VERSION}"));
    let program = tools.join("bin/mdbook");
    if program.is_file() {
        return Ok(program);
    }
    if no_install {
        bail!("mdBook is not built; run `cargo xtask docs`");
    }
    say::line(format!("building mdBook {MDBOOK_VERSION}, once; this takes minutes"));
    let mut install = workspace::cargo();
    install.args(["install", "mdbook", "--version", MDBOOK_VERSION, "--locked"]);
    install.args(["--no-default-features", "--root"]).arg(&tools);
    run::step("mdBook", &mut install)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_in_order() {
        check_pages().unwrap();
    }
}
