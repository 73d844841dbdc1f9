//! Finding the programs that a lab runs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The `kproxy-lab` binary: `KPROXY_LAB_BIN`, else this executable, else the one beside it.
pub(crate) fn lab() -> Result<PathBuf> {
    find("kproxy-lab", "KPROXY_LAB_BIN")
}

/// The `kproxy` binary: `KPROXY_BIN`, else the one in the target folder of this executable.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn kproxy() -> Result<PathBuf> {
    find("kproxy", "KPROXY_BIN")
}

fn find(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{variable} names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let exe = env::current_exe().context("find the path of this executable")?;
    let candidates = candidates(&exe, name);
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!(
            "no `{name}` binary in {}: build it with `cargo build -p {name}`, or name one in \
             {variable}",
            candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        ),
    }
}

/// `target/debug/deps/test-1234` and `target/debug/xtask` both have their binaries in
/// `target/debug`; the other profile is second choice.
fn candidates(exe: &Path, name: &str) -> Vec<PathBuf> {
    let Some(mut folder) = exe.parent() else { return Vec::new() };
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().unwrap_or(folder);
    }
    let mut found = vec![folder.join(name)];
    if let Some(target) = folder.parent() {
        found.extend(["debug", "release"].map(|profile| target.join(profile).join(name)));
    }
    found.dedup();
    found
}

/// A program that set-up has put into kproxy's cache (a newer Go), in PATH, or in the folders for
/// administrators, which PATH may lack.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = kproxy_build::tools_dir().map(|tools| tools.join("bin"));
    tools
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_programs_find_binaries_of_their_target_folder() {
        let first = |exe| candidates(Path::new(exe), "kproxy")[0].clone();
        assert_eq!(first("/t/debug/deps/lab-12ab"), Path::new("/t/debug/kproxy"));
        assert_eq!(first("/t/release/xtask"), Path::new("/t/release/kproxy"));
    }
}
