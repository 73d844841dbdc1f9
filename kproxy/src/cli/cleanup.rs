//! `kproxy cleanup`: takes every trace of kproxy off this node, or of kube-proxy.

mod kube_proxy;
mod wait;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

use self::wait::{connections, wait_for_end};
use super::args::CleanupArgs;
use super::exit::Exit;
use super::render::note;
use super::values::Timeout;
use crate::daemon::RunDir;
use crate::daemon::run_dir::is_absent;
use crate::dataplane::{self, Cleanup, Drain};
use crate::errors::with_causes;

/// Removes links, programs, maps, filters, the nftables table and the files of the run folder, and
/// prints what it removed. What fails is said and does not stop the rest.
///
/// # Errors
/// A running daemon (unless forced), what could not be removed, and those of the writer.
pub(super) fn run(args: CleanupArgs, out: &mut dyn Write) -> Result<Exit> {
    let CleanupArgs { kube_proxy, dry_run, force, drain, timeout, stay, pins, run_dir } = args;
    let timeout = timeout.map(|Timeout(time)| time);
    if kube_proxy {
        let drain = drain.then_some(timeout);
        let how = kube_proxy::How { force, dry_run, drain, bpffs_root: &pins.bpffs_root };
        return kube_proxy::run(&how, out);
    }
    let run_dir = RunDir::new(run_dir.run_dir);
    if let (Some(pid), false) = (run_dir.running()?, force) {
        bail!(
            "the daemon is running (pid {pid}) and would go on serving half of what is removed; \
             stop it first, or use --force"
        );
    }
    if drain {
        self::drain(&pins.bpffs_root, timeout, out)?;
    }
    let Cleanup { mut removed, errors } = dataplane::cleanup(&pins.bpffs_root);
    let mut errors: Vec<String> = errors.iter().map(|error| with_causes(error)).collect();
    remove_run_dir(&run_dir, &mut removed, &mut errors);
    for what in &removed {
        writeln!(out, "removed {what}")?;
    }
    for error in &errors {
        note(format_args!("kproxy: {error}"));
    }
    match errors.len() {
        0 if removed.is_empty() => writeln!(out, "nothing to remove")?,
        0 => {}
        1 => bail!("1 thing could not be removed, see above; cleaning up needs root"),
        count => bail!("{count} things could not be removed, see above; cleaning up needs root"),
    }
    if stay {
        writeln!(out, "nothing of kproxy is left; staying until told to end")?;
        out.flush()?;
        wait_for_signal()?;
    }
    Ok(Exit::Fine)
}

/// Waits until nothing is translated any more, at most so long.
fn drain(bpffs_root: &Path, at_most: Option<Duration>, out: &mut dyn Write) -> Result<()> {
    let Some(mut drain) = Drain::begin(bpffs_root)? else { return Ok(()) };
    if let Some(error) = drain.untold() {
        note(format_args!(
            "kproxy: netfilter cannot be told which source ports are in use ({error}): a connection that \
             another proxy opens may be given one of them, and fail"
        ));
    }
    let end =
        wait_for_end(at_most, "nothing new is translated", || Ok(drain.open_connections()?), out)?;
    let Some((open, waited)) = end else {
        writeln!(out, "nothing is translated any more")?;
        return Ok(());
    };
    let left = drain.leave();
    let (all, end) = (connections(open), open.saturating_sub(left));
    writeln!(out, "{all} still open after {waited}s: {left} left to netfilter, {end} end now")?;
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
fn wait_for_signal() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().and_then(|()| signals.wait()).context("wait for a signal")?;
    Ok(())
}

/// The files that the daemon keeps, and the folder if nothing else is in it.
fn remove_run_dir(run_dir: &RunDir, removed: &mut Vec<String>, errors: &mut Vec<String>) {
    let mut note = |path: &Path, result: io::Result<()>| match result {
        Ok(()) => removed.push(path.display().to_string()),
        Err(error) if is_absent(&error) => {}
        Err(error) => errors.push(format!("remove {}: {error}", path.display())),
    };
    for file in run_dir.files() {
        note(&file, fs::remove_file(&file));
    }
    match fs::remove_dir(run_dir.path()) {
        // A folder that is mounted cannot be removed from inside; that it is empty is enough.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DirectoryNotEmpty
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::ResourceBusy
            ) => {}
        result => note(run_dir.path(), result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_others_stay_in_the_run_folder() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(dir.path().join("run"));
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        remove_run_dir(&run_dir, &mut removed, &mut errors);
        assert_eq!((removed.len(), errors.len()), (0, 0), "there is none");
        fs::create_dir(run_dir.path()).unwrap();
        fs::write(run_dir.pid_file(), "1").unwrap();
        fs::write(run_dir.path().join("notes"), "").unwrap();
        remove_run_dir(&run_dir, &mut removed, &mut errors);
        assert_eq!(removed, [run_dir.pid_file().display().to_string()]);
        assert!(errors.is_empty() && run_dir.path().join("notes").exists(), "{errors:?}");
    }

    #[test]
    fn what_cannot_be_removed_is_named_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(dir.path());
        fs::create_dir(run_dir.pid_file()).unwrap();
        fs::write(run_dir.problems_file(), "[]").unwrap();
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        remove_run_dir(&run_dir, &mut removed, &mut errors);
        assert_eq!(removed, [run_dir.problems_file().display().to_string()]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("kproxy.pid"), "{errors:?}");
    }
}
