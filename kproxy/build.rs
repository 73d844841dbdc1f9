//! Builds the BPF programs into `$OUT_DIR/kproxy-ebpf`, which `kproxy::dataplane` embeds.

use std::{
    env,
    path::{Path, PathBuf},
};

use kproxy_build::{Toolchain, build_object, object_inputs};

fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let root = manifest_dir.parent().unwrap_or(&manifest_dir);

    for input in object_inputs(root) {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    println!("cargo::rerun-if-env-changed=KPROXY_CACHE");

    let toolchain = match Toolchain::detect() {
        Ok(toolchain) => toolchain,
        Err(missing) => return fail(&missing.to_string()),
    };
    println!("cargo::rerun-if-changed={}", toolchain.linker.path.display());
    let output = out_dir.join("kproxy-ebpf");
    let features: &[&str] =
        if env::var_os("CARGO_FEATURE_OTHER_LAYOUT").is_some() { &["other-layout"] } else { &[] };
    let target_dir = target_dir(&out_dir);
    if let Err(error) = build_object(&toolchain, root, features, &target_dir, &output) {
        fail(&error.to_string());
    }
}

/// A folder beside the outer build's profiles, so that they share one build of `core`. It is not
/// the outer target folder itself: the outer cargo holds that one's lock while this script runs.
fn target_dir(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out_dir)
        .join("ebpf")
}

fn variable(name: &str) -> std::ffi::OsString {
    env::var_os(name).unwrap_or_default()
}

/// Makes cargo print a message and fail. An exit status would make it repeat everything that this
/// script has printed.
fn fail(message: &str) {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
}
