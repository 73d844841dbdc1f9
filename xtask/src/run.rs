//! Runs other programs and shows that they are still at work.

use std::{
    ffi::OsStr,
    io::stderr,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::say;

/// How often a silent step says that it is still running.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Runs a command to its end with its output on standard error.
///
/// # Errors
/// When it cannot be started or fails; names the command.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stderr())
        .spawn()
        .with_context(|| format!("{what}: start `{line}`"))?;
    let (done, finished) = channel::<()>();
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            while finished.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                say::line(format!("{what}: running for {}", say::duration(started.elapsed())));
            }
        });
        let status = child.wait();
        drop(done);
        status
    })
    .with_context(|| format!("{what}: wait for `{line}`"))?;
    if !status.success() {
        bail!("{what} failed ({status}): `{line}`");
    }
    Ok(())
}

/// Standard output of a command that succeeds, else `None`.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it, with the variables that it sets in front.
pub(crate) fn command_line(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains([' ', '*', '(', ')', '$']) { format!("'{word}'") } else { word.into_owned() }
}
