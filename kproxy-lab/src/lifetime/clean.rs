//! Removes all that a lab left on the machine.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result, bail};

use super::owner::{Found, list};
use crate::layout::Names;
use crate::{cgroup, mounts, netns};

/// Removes everything that a lab has on this machine: processes, mounts, namespaces, cgroups, its
/// folder. Works on what is there, so it may be called twice, on half-made labs, and by two
/// cleaners at once.
///
/// # Errors
/// When something stays; what could be removed is removed all the same.
pub(crate) fn clean(id: &str) -> Result<()> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("`{id}` is no lab id; `kproxy-lab list` shows them");
    }
    let names = Names::new(id);
    let groups = cgroup::named(&names.cgroup())?;
    // Processes first: they hold the rest.
    let mut results = vec![];
    results.extend(groups.iter().map(|group| cgroup::remove(group)));
    results.push(mounts::unmount_below(&names.dir()));
    for name in netns::named(&names.netns_prefix())? {
        results.push(netns::remove(&name));
    }
    // The folder goes last and only when the rest is gone: as long as it exists, the next cleaner
    // finds the lab. Never delete through a mount that is still there.
    for result in results {
        result?;
    }
    match fs::remove_dir_all(names.dir()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("remove {}", names.dir().display())),
    }
}

/// Removes labs whose owner ended without cleaning; returns their ids.
///
/// # Errors
/// When one cannot be removed.
pub fn clean_dead() -> Result<Vec<String>> {
    let dead: Vec<String> =
        list()?.into_iter().filter(Found::is_dead).map(|found| found.id).collect();
    for id in &dead {
        clean(id).with_context(|| format!("remove what lab {id} left"))?;
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_state_folder_are_refused() {
        for id in ["", "..", "a/b"] {
            assert!(clean(id).is_err(), "{id}");
        }
    }
}
