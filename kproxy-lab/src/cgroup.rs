//! The lab's part of the cgroup v2 tree: it groups the sockets of a node for kproxy's programs,
//! and the processes of a lab for cleaning.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::mounts;
use crate::wait::poll_until;

/// How long the processes of a cgroup may need to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where cgroup v2 is mounted: /sys/fs/cgroup, or a folder below it on hybrid machines.
///
/// # Errors
/// When it is mounted nowhere.
pub(crate) fn root() -> Result<PathBuf> {
    mounts::first_of("cgroup2")?.context(
        "no cgroup v2 hierarchy is mounted; mount one with \
         `mount -t cgroup2 none /sys/fs/cgroup/unified`",
    )
}

/// The cgroups at the root that have this name, or begin with it and a hyphen: those of containers, which are made
/// by others.
///
/// # Errors
/// When cgroup v2 is mounted nowhere, or cannot be read.
pub(crate) fn named(name: &str) -> Result<Vec<PathBuf>> {
    let root = root()?;
    let entries = fs::read_dir(&root).with_context(|| format!("read {}", root.display()))?;
    let is_one = |path: &PathBuf| {
        let rest = path.file_name().and_then(|found| found.to_str()?.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_one).collect())
}

/// Makes a cgroup and its parents.
pub(crate) fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make cgroup {}", path.display()))
}

/// Moves a process into a cgroup; all sockets it makes from then on belong to it.
pub(crate) fn join(path: &Path, pid: u32) -> Result<()> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("move process {pid} into cgroup {}", path.display()))
}

/// Moves the calling process into a cgroup.
pub(crate) fn join_self(path: &Path) -> Result<()> {
    join(path, process::id())
}

/// Kills every process of a cgroup and of those below it, and removes them all. Nothing to do when
/// the cgroup does not exist.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let remove = || {
        kill(path)?;
        Ok(remove_tree(path))
    };
    let is_over = |removed: &io::Result<()>| {
        !removed.as_ref().is_err_and(|e| e.kind() == ErrorKind::ResourceBusy)
    };
    match poll_until(PATIENCE, Duration::from_millis(5), remove, is_over)? {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => bail!("remove cgroup {}: {e}; processes left: {:?}", path.display(), pids(path)),
    }
}

/// Kills every process of a cgroup and of those below it; does not wait for their end.
pub(crate) fn kill(path: &Path) -> Result<()> {
    // cgroup.kill came with Linux 5.14; before that each process is killed on its own.
    // Opened without O_CREAT, which the file system answers with EACCES instead of ENOENT.
    let file = OpenOptions::new().write(true).open(path.join("cgroup.kill"));
    match file.and_then(|mut file| file.write_all(b"1")) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        // Another cleaner removed it between opening and writing.
        Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("kill cgroup {}", path.display())),
    }
    for pid in pids(path) {
        // ESRCH: it ended meanwhile; any other failure shows as a cgroup that stays busy.
        let _ended = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    Ok(())
}

/// Processes of a cgroup and of those below it.
pub(crate) fn pids(path: &Path) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_to_string(path.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for child in children(path).unwrap_or_default() {
        found.extend(pids(&child));
    }
    found
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path)? {
        remove_tree(&child)?;
    }
    fs::remove_dir(path)
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
