//! Builds the BPF object.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Toolchain;

/// The crate that holds the programs, and its binary's name.
const CRATE: &str = "kproxy-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// Full debug information becomes BTF, without which no kernel loads the maps. bpf-linker's own way
/// with copies makes a call with a loop over bytes of each that LLVM sees: half of what a packet cost.
const FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order";

/// Why the BPF object could not be built.
#[derive(Debug)]
pub enum BuildError {
    /// A program could not be started or a file not copied; says which.
    Io(String, io::Error),
    /// cargo failed; its own messages.
    Cargo(String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Cargo(messages) => write!(f, "building {CRATE} failed:\n{messages}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Cargo(_) => None,
        }
    }
}

/// Files and folders that the object is made of, given the repository's root.
pub fn object_inputs(root: &Path) -> Vec<PathBuf> {
    [
        "Cargo.toml",
        "kproxy-common/Cargo.toml",
        "kproxy-common/src",
        "kproxy-ebpf/Cargo.toml",
        "kproxy-ebpf/Cargo.lock",
        "kproxy-ebpf/src",
    ]
    .iter()
    .map(|path| root.join(path))
    .collect()
}

/// Builds the object of the repository at `root` with these features in `target_dir` and copies it to `output`.
///
/// # Errors
/// When cargo cannot be started, fails, or the object cannot be copied.
pub fn build_object(
    toolchain: &Toolchain,
    root: &Path,
    features: &[&str],
    target_dir: &Path,
    output: &Path,
) -> Result<(), BuildError> {
    let mut cargo = toolchain.compiler.cargo();
    for_programs(cargo.arg("build"), toolchain, root, target_dir);
    cargo.args(["--features", &features.join(",")]);
    let result = cargo
        .output()
        .map_err(|error| BuildError::Io(format!("start {:?}", cargo.get_program()), error))?;
    if !result.status.success() {
        return Err(BuildError::Cargo(String::from_utf8_lossy(&result.stderr).into_owned()));
    }
    let object = target_dir.join(TARGET).join("release").join(CRATE);
    fs::copy(&object, output).map_err(|error| {
        BuildError::Io(format!("copy {} to {}", object.display(), output.display()), error)
    })?;
    Ok(())
}

/// The command that lints the programs of the repository at `root`, built as [`build_object`] builds
/// them.
pub fn lint_programs(toolchain: &Toolchain, root: &Path, target_dir: &Path) -> Command {
    let mut clippy = toolchain.compiler.clippy();
    for_programs(&mut clippy, toolchain, root, target_dir);
    clippy.args(["--", "-D", "warnings"]);
    clippy
}

/// Says what a command of cargo is about: the programs, for their target.
fn for_programs(cargo: &mut Command, toolchain: &Toolchain, root: &Path, target_dir: &Path) {
    cargo
        .current_dir(root.join(CRATE))
        .env("PATH", toolchain.search_path())
        .env("RUSTFLAGS", FLAGS)
        .args(["--release", "--bin", CRATE])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .stdin(Stdio::null());
}
