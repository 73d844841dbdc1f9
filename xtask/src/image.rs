//! `cargo xtask image`: kproxy's image as an OCI archive.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kproxy_lab::image::{Architecture, Image};

use crate::{
    run, say,
    setup::{self, Scope},
    workspace,
};

/// Options of `cargo xtask image`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Name and tag of the image.
    #[arg(long, default_value = concat!("kproxy:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// Where the archive is written [default: target/kproxy-image.tar].
    #[arg(long)]
    output: Option<PathBuf>,
    /// Install nothing; report what is missing and stop.
    #[arg(long)]
    no_install: bool,
}

/// Builds kproxy for this machine's processor and writes the image.
///
/// # Errors
/// When something is missing, a build fails, or the packages of the distribution cannot be had.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(options.no_install, Scope::All)?;
    let arch = Architecture::current().context("images are made on amd64 and arm64")?;
    say::heading("Building kproxy");
    let mut build = workspace::cargo();
    run::step("build", build.args(["build", "--release", "--locked", "--package", "kproxy"]))?;
    let target = workspace::root().join("target");
    let output = options.output.clone().unwrap_or_else(|| target.join("kproxy-image.tar"));
    say::heading("Packing the image");
    let binary = target.join("release/kproxy");
    Image { name: options.name.clone(), binary, arch, cached: false }.write(&output)?;
    println!("{} ({}): {}", options.name, arch.name(), output.display());
    Ok(())
}
