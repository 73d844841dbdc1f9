//! Which labs exist, and whom they belong to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result, bail};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::layout::{Names, STATE_ROOT};
use crate::random;

/// The process that a lab belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time of the process in clock ticks after boot: tells it from a later one of the same
    /// id.
    pub(crate) start_time: u64,
    /// Whether the lab shall outlive the process ([`crate::Lab::keep`]).
    pub(crate) kept: bool,
    /// Command line, for people.
    pub(crate) command: String,
}

impl Owner {
    fn current() -> Result<Self> {
        let pid = process::id();
        let start_time = start_time(pid).context("find the start time of this process")?;
        let command: Vec<String> = std::env::args().collect();
        Ok(Self { pid, start_time, kept: false, command: command.join(" ") })
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    Some(process.stat().ok()?.starttime)
}

/// A lab found on this machine.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its owner; `None` when the owner's file cannot be read.
    pub owner: Option<Owner>,
}

impl Found {
    /// Whether nobody needs the lab any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| !owner.kept && !owner.is_alive())
    }
}

/// Takes an id that no other lab has and makes the lab's folder.
pub(crate) fn claim() -> Result<Names> {
    fs::create_dir_all(STATE_ROOT).with_context(|| format!("make {STATE_ROOT}"))?;
    let owner = Owner::current()?;
    for _attempt in 0..100 {
        let id = random_id();
        // The folder appears under its name with the owner in it, so that no cleaner takes it for
        // a dead one. Renaming onto a folder that is not empty fails: that is how ids stay unique.
        let draft = Path::new(STATE_ROOT).join(format!(".{id}-{}", owner.pid));
        fs::create_dir(&draft).with_context(|| format!("make {}", draft.display()))?;
        write_owner(&draft, &owner)?;
        let names = Names::new(&id);
        match fs::rename(&draft, names.dir()) {
            Ok(()) => return Ok(names),
            Err(_taken) => {
                fs::remove_dir_all(&draft).with_context(|| format!("remove {}", draft.display()))?
            }
        }
    }
    bail!("found no free lab id in {STATE_ROOT}: run `kproxy-lab clean`")
}

fn random_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bits = random::bits();
    (0..5)
        .map(|_| {
            let letter = LETTERS[(bits % 32) as usize] as char;
            bits /= 32;
            letter
        })
        .collect()
}

/// Marks a lab as one that shall outlive its process.
pub(crate) fn keep(names: &Names) -> Result<()> {
    write_owner(&names.dir(), &Owner { kept: true, ..Owner::current()? })
}

fn owner_file(dir: &Path) -> PathBuf {
    dir.join("owner.json")
}

fn write_owner(dir: &Path, owner: &Owner) -> Result<()> {
    let file = owner_file(dir);
    let text = serde_json::to_string(owner).context("encode the owner")?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

/// All labs on this machine.
///
/// # Errors
/// When the state folder exists and cannot be read.
pub fn list() -> Result<Vec<Found>> {
    let entries = match fs::read_dir(STATE_ROOT) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("list {STATE_ROOT}")),
    };
    let mut found: Vec<Found> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .map(|id| {
            let text = fs::read_to_string(owner_file(&Path::new(STATE_ROOT).join(&id))).ok();
            Found { id, owner: text.and_then(|text| serde_json::from_str(&text).ok()) }
        })
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_changed_start_time_is_another_process() {
        let owner = Owner::current().unwrap();
        assert!(owner.is_alive());
        let other = Owner { start_time: owner.start_time + 1, ..owner };
        assert!(!other.is_alive());
        assert!(Found { id: "x".into(), owner: Some(other.clone()) }.is_dead());
        let kept = Owner { kept: true, ..other };
        assert!(!Found { id: "x".into(), owner: Some(kept) }.is_dead());
    }
}
