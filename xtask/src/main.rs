//! The project's commands: `cargo xtask <command>`.
//!
//! | command | does |
//! |---|---|
//! | `setup` | installs what building and testing take |
//! | `demo` | shows kproxy at work on two nodes |
//! | `parity` | runs the same cases on kproxy and on the real kube-proxy |
//! | `bench` | measures what a connection costs, directly and through each proxy |
//! | `chaos` | attacks kproxy, and tells what honest clients lose |
//! | `image` | writes kproxy's image as an OCI archive |
//! | `deploy` | renders what operators apply, and checks it |
//! | `docs` | makes the book of the pages, and checks them |
//! | `kernels` | tries kproxy on other kernels, in QEMU |
//! | `test` | checks and tests everything |
//! | `tidy` | checks the sources against the project's rules |
//!
//! Every command does its own set-up. Messages go to standard error; standard output is for data.

mod bench;
mod chaos;
mod demo;
mod deploy;
mod docs;
mod image;
mod kernels;
mod parity;
mod prepare;
mod run;
mod say;
mod setup;
mod stats;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

/// The project's commands.
#[derive(clap::Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Install what building and testing take; says so first.
    Setup(setup::Options),
    /// Show kproxy at work on two nodes.
    Demo(demo::Options),
    /// Run the same cases on kproxy and on the real kube-proxy, and compare.
    Parity(parity::Options),
    /// Measure what a connection costs, directly and through each proxy.
    Bench(bench::Options),
    /// Attack kproxy, and tell what honest clients lose.
    #[command(subcommand)]
    Chaos(chaos::Kind),
    /// Write kproxy's image, without a container engine.
    Image(image::Options),
    /// Render what operators apply (Kustomize, Helm); with `--check`, check it.
    Deploy(deploy::Options),
    /// Make the book of the pages; with `--check`, check links and commands, too.
    Docs(docs::Options),
    /// Try kproxy on other kernels, in QEMU; hold what the verifier walks to the budgets.
    Kernels(kernels::Options),
    /// Check and test everything.
    Test(test::Options),
    /// Check the sources against the project's rules.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Setup(options) => setup::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Parity(options) => parity::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Chaos(kind) => chaos::run(&kind),
        Command::Image(options) => image::run(&options),
        Command::Deploy(options) => deploy::run(&options),
        Command::Docs(options) => docs::run(&options),
        Command::Kernels(options) => kernels::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", say::bold("error:"));
            ExitCode::FAILURE
        }
    }
}
