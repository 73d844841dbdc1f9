//! Commands of the system that tables of the kernel are read and written with.

use std::{
    env, io,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

/// Package of the iptables commands.
pub(super) const IPTABLES: &str = "iptables";
/// Package of ipset.
pub(super) const IPSET: &str = "ipset";

/// Why a command gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not here.
    #[error("there is no {program}; install the package {package}, or run this where it is")]
    Missing {
        /// The command.
        program: String,
        /// What holds it.
        package: &'static str,
    },
    /// It could not be run.
    #[error("run {program}: {source}")]
    Run {
        /// The command.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("{program} says: {message}")]
    Refused {
        /// The command.
        program: String,
        /// What it printed.
        message: String,
    },
}

/// Whether a command is in the path.
pub(super) fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a command with this input; what it prints.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |source| Error::Run { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A child that has ended early says why on stderr.
            stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
        });
        child.wait_with_output()
    });
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Refused { program: program.to_owned(), message })
}
