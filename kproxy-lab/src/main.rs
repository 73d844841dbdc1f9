//! `kproxy-lab`: labs by hand, and the processes that a lab runs.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match kproxy_lab::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kproxy-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
