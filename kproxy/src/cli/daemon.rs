//! Whether a daemon is running: its run folder holds its pid and its list of problems.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::control::PROBLEMS_FILE;
use crate::model::Problem;

/// Pid of the daemon, in decimal.
pub fn pid_file(run_dir: &Path) -> PathBuf {
    run_dir.join("kproxy.pid")
}

/// Current problems, a JSON array of [`Problem`].
pub fn problems_file(run_dir: &Path) -> PathBuf {
    run_dir.join(PROBLEMS_FILE)
}

/// Pid of the running daemon; `None` if there is none: no pid file, or its process is gone or no
/// kproxy (pids are used again).
///
/// # Errors
/// The pid file cannot be read.
pub fn running(run_dir: &Path) -> Result<Option<u32>> {
    let path = pid_file(run_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let Ok(pid) = text.trim().parse::<u32>() else { return Ok(None) };
    // The name of the executable, cut to 15 bytes; readable for everyone, unlike /proc/PID/exe.
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) if name.trim_end() == "kproxy" && !is_zombie(pid) => Ok(Some(pid)),
        _ => Ok(None),
    }
}

/// A process that has ended and waits for its parent: the letter after the name in
/// /proc/PID/stat (proc_pid_stat(5)).
fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('Z' | 'X'))
}

/// The problems that the daemon last reported; none if it has written no list.
///
/// # Errors
/// The list cannot be read or understood.
pub fn problems(run_dir: &Path) -> Result<Vec<Problem>> {
    let path = problems_file(run_dir);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&text).with_context(|| {
        format!("{} is no list of problems; restart kproxy to have it written anew", path.display())
    })
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_kproxy_counts_as_running() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()).unwrap(), None);
        for text in ["", "x", "-1", "0", "99999999999", &std::process::id().to_string()] {
            fs::write(pid_file(dir.path()), text).unwrap();
            assert_eq!(running(dir.path()).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn problems_are_read_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(problems(dir.path()).unwrap(), []);
        let all = vec![Problem::new("Service default/web", "port 0", "give it a port")];
        fs::write(problems_file(dir.path()), serde_json::to_vec(&all).unwrap()).unwrap();
        assert_eq!(problems(dir.path()).unwrap(), all);
        fs::write(problems_file(dir.path()), "{").unwrap();
        assert!(problems(dir.path()).is_err());
    }
}
