//! The kproxy command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kproxy::cli::main()
}
