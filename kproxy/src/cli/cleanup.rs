//! `kproxy cleanup`: takes every trace of kproxy off this node.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Result, bail};

use super::args::CleanupArgs;
use super::exit::Exit;
use super::render::note;
use crate::daemon::RunDir;
use crate::daemon::run_dir::is_absent;
use crate::dataplane::{self, Cleanup};
use crate::errors::with_causes;

/// Removes links, programs, maps, filters, the nftables table and the files of the run folder, and
/// prints what it removed. What fails is said and does not stop the rest.
///
/// # Errors
/// A running daemon (unless forced), what could not be removed, and those of the writer.
pub(super) fn run(args: CleanupArgs, out: &mut dyn Write) -> Result<Exit> {
    let CleanupArgs { force, pins, run_dir } = args;
    let run_dir = RunDir::new(run_dir.run_dir);
    if let (Some(pid), false) = (run_dir.running()?, force) {
        bail!(
            "the daemon is running (pid {pid}) and would go on serving half of what is removed; \
             stop it first, or use --force"
        );
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
    Ok(Exit::Fine)
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
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
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
