//! Looks for a compiler with the sources of `core`, and for bpf-linker.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{LINKER, LLVM_MAJOR, RUSTUP_TOOLCHAIN, tools_dir};

/// Where the distribution's packages put compiler and package manager.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
const DISTRIBUTION_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// The sources of `core`, relative to a compiler's sysroot.
const CORE_SOURCE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// A compiler that can build `core` for the BPF target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compiler {
    /// rustup's nightly with the component `rust-src`.
    Rustup,
    /// The distribution's own: Debian's rustc-web, cargo-web and rust-web-src.
    Distribution,
}

impl Compiler {
    /// A command that runs cargo with this compiler, in an environment free of what the outer
    /// cargo and rustup set for their own children.
    pub fn cargo(self) -> Command {
        let mut command = match self {
            Self::Rustup => rustup_run("cargo"),
            Self::Distribution => Command::new(DISTRIBUTION_CARGO),
        };
        self.prepare(&mut command);
        command
    }

    /// A command that runs `cargo clippy` as [`Self::cargo`] runs cargo.
    pub fn clippy(self) -> Command {
        let mut command = match self {
            Self::Rustup => rustup_run("cargo-clippy"),
            // Not by way of its cargo, which would look for clippy in ~/.cargo/bin first.
            Self::Distribution => Command::new(DISTRIBUTION_CLIPPY),
        };
        self.prepare(&mut command);
        if self == Self::Distribution {
            command.env("CARGO", DISTRIBUTION_CARGO);
        }
        command.arg("clippy");
        command
    }

    /// Whether [`Self::clippy`] runs.
    pub fn has_clippy(self) -> bool {
        let mut command = self.clippy();
        command.env("RUSTUP_AUTO_INSTALL", "0").arg("--version").stdin(Stdio::null());
        command.output().is_ok_and(|output| output.status.success())
    }

    /// Takes the outer build's settings away and sets this compiler's.
    fn prepare(self, command: &mut Command) {
        scrub(command);
        // Named, as PATH may hold another toolchain's rustc in front of rustup's.
        match self {
            Self::Rustup => {
                if let Some(sysroot) = self.sysroot() {
                    command.env("RUSTC", sysroot.join("bin/rustc"));
                }
            }
            Self::Distribution => {
                // Released compilers allow -Z build-std only with this.
                command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DISTRIBUTION_RUSTC);
            }
        }
    }

    /// The compiler's sysroot; `None` when the compiler does not run.
    fn sysroot(self) -> Option<PathBuf> {
        let mut command = self.rustc();
        let output = command.args(["--print", "sysroot"]).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| PathBuf::from(text.trim()))
    }

    fn rustc(self) -> Command {
        let mut command = match self {
            Self::Rustup => rustup_run("rustc"),
            Self::Distribution => Command::new(DISTRIBUTION_RUSTC),
        };
        scrub(&mut command);
        // A missing toolchain is a finding here, not something to download.
        command.env("RUSTUP_AUTO_INSTALL", "0");
        command
    }

    /// Major version of the LLVM in this compiler. A linker with an older one cannot read what it
    /// writes.
    pub fn llvm_major(self) -> Option<u32> {
        let output = self.rustc().arg("-vV").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next()?.parse().ok()
    }

    /// Why this compiler cannot be used, if it cannot.
    fn check(self) -> Result<(), String> {
        let Some(sysroot) = self.sysroot() else {
            return Err(match self {
                Self::Rustup => format!("rustup has no toolchain \"{RUSTUP_TOOLCHAIN}\""),
                Self::Distribution => format!("there is no working {DISTRIBUTION_RUSTC}"),
            });
        };
        if !sysroot.join(CORE_SOURCE).is_file() {
            return Err(match self {
                Self::Rustup => {
                    format!("rustup's \"{RUSTUP_TOOLCHAIN}\" lacks the component rust-src")
                }
                Self::Distribution => {
                    format!("{DISTRIBUTION_RUSTC} has no library sources (rust-web-src)")
                }
            });
        }
        if self == Self::Distribution && !Path::new(DISTRIBUTION_CARGO).is_file() {
            return Err(format!("there is no {DISTRIBUTION_CARGO}"));
        }
        Ok(())
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup => write!(f, "rustup {RUSTUP_TOOLCHAIN} with rust-src"),
            Self::Distribution => write!(f, "the distribution's {DISTRIBUTION_RUSTC}"),
        }
    }
}

/// An installed bpf-linker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linker {
    /// Its path.
    pub path: PathBuf,
}

/// Everything that building the BPF object takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The linker.
    pub linker: Linker,
}

impl Toolchain {
    /// Looks for a compiler and a linker.
    ///
    /// # Errors
    /// Names each thing that is missing, and why each candidate was refused.
    pub fn detect() -> Result<Self, Missing> {
        let (compiler, linker) = (find_compiler(), find_linker());
        match (compiler, linker) {
            (Ok(compiler), Some(linker)) => Ok(Self { compiler, linker }),
            (compiler, linker) => Err(Missing {
                compiler: compiler.err().unwrap_or_default(),
                linker: linker.is_none(),
            }),
        }
    }

    /// `PATH` with the linker's folder in front, and LLVM's programs beside it.
    pub fn search_path(&self) -> OsString {
        let own = self.linker.path.parent().map(Path::to_path_buf);
        let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}/bin"));
        let inherited = env::var_os("PATH").unwrap_or_default();
        let dirs = own.into_iter().chain([llvm]).chain(env::split_paths(&inherited));
        // Only a folder with a colon in its name cannot be joined.
        env::join_paths(dirs).unwrap_or(inherited)
    }
}

/// What building the BPF object lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// One line a refused compiler; empty when one was found.
    pub compiler: Vec<String>,
    /// No bpf-linker was found.
    pub linker: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kproxy's BPF programs cannot be built here:")?;
        for line in &self.compiler {
            writeln!(f, "  - {line}")?;
        }
        if self.linker {
            writeln!(f, "  - there is no {LINKER}, neither in kproxy's cache nor on PATH")?;
        }
        writeln!(f, "Run `cargo xtask setup`: it says what it installs and installs it.")?;
        write!(f, "By hand: the section \"Building\" of docs/install.md.")
    }
}

impl std::error::Error for Missing {}

/// The first usable compiler: rustup's before the distribution's.
///
/// # Errors
/// One line a candidate with the reason why it is not usable.
pub fn find_compiler() -> Result<Compiler, Vec<String>> {
    let mut refused = Vec::new();
    for compiler in [Compiler::Rustup, Compiler::Distribution] {
        match compiler.check() {
            Ok(()) => return Ok(compiler),
            Err(reason) => refused.push(reason),
        }
    }
    Err(refused)
}

/// bpf-linker in kproxy's cache, else on `PATH`.
pub fn find_linker() -> Option<Linker> {
    let cached = tools_dir().map(|dir| dir.join("bin").join(LINKER));
    let inherited = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&inherited).map(|dir| dir.join(LINKER));
    cached.into_iter().chain(on_path).find(|path| path.is_file()).map(|path| Linker { path })
}

fn rustup_run(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", RUSTUP_TOOLCHAIN, program]);
    command
}

/// Removes what cargo and rustup put into the environment of the programs that they start, above
/// all `RUSTC`, `RUSTC_WORKSPACE_WRAPPER` (clippy), the host's flags and `RUSTUP_TOOLCHAIN`.
fn scrub(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_build_variable) {
            command.env_remove(name);
        }
    }
}

fn is_build_variable(name: &str) -> bool {
    const EXACT: [&str; 9] = [
        "CARGO",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "NUM_JOBS",
        "OUT_DIR",
        "PROFILE",
        "RUSTUP_TOOLCHAIN",
        "TARGET",
    ];
    // How to reach the registry stays as the user has set it.
    const KEPT: [&str; 5] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    const PREFIXES: [&str; 4] = ["CARGO_", "DEP_", "RUSTC", "RUSTFLAGS"];
    EXACT.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !KEPT.iter().any(|kept| name.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_does_not_leak_into_the_inner() {
        for name in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "OUT_DIR"] {
            assert!(is_build_variable(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH", "HOME"] {
            assert!(!is_build_variable(name), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_a_remedy() {
        let missing = Missing { compiler: vec!["rustup has no nightly".into()], linker: true };
        let text = missing.to_string();
        assert!(text.contains("rustup has no nightly") && text.contains(LINKER));
        assert!(text.contains("cargo xtask setup"));
    }
}
