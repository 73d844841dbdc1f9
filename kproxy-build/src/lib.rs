//! Finds a toolchain that can build kproxy's BPF object, and builds the object with it.
//!
//! kproxy's build script and `cargo xtask setup` share this crate, so that what set-up installs is
//! by construction what the build looks for. Free of dependencies: it is on the way of every build.
//!
//! Two toolchains are known (see [`Compiler`]). Both need the sources of the standard library, as
//! the BPF target has no ready-made `core`, and both need [bpf-linker](LINKER).

mod cache;
mod detect;
mod object;

pub use cache::{cache_dir, tools_dir};
pub use detect::{Compiler, Linker, Missing, Toolchain, find_compiler, find_linker};
pub use object::{BuildError, build_object, lint_programs, object_inputs};

/// Name of the linker's program.
pub const LINKER: &str = "bpf-linker";
/// The bpf-linker release that kproxy is built and tested with.
pub const LINKER_VERSION: &str = "0.13.0";
/// Major version of the LLVM that set-up builds bpf-linker against on Debian.
pub const LLVM_MAJOR: u32 = 22;
/// The rustup toolchain that is looked for.
pub const RUSTUP_TOOLCHAIN: &str = "nightly";
