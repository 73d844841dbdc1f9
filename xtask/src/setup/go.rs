//! A Go that can build the programs of Kubernetes.
//!
//! Any Go from 1.21 on fetches the release that a module asks for. An older one (Debian 12 has
//! 1.19) can at least fetch that release as the module `golang.org/toolchain`, which is how newer
//! ones do it too.

use std::{env::consts::ARCH, path::PathBuf};

use kproxy_build::tools_dir;

use super::step::Action;

/// First Go that fetches newer releases of itself.
pub(crate) const SELF_UPDATING: (u32, u32) = (1, 21);
/// The release that Kubernetes 1.36 asks for in its go.mod.
const RELEASE: &str = "1.26.0";

/// Folder of the Go in the cache.
fn dir() -> Option<PathBuf> {
    Some(tools_dir()?.join(format!("go/golang.org/toolchain@{}", version())))
}

fn version() -> String {
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("v0.0.1-go{RELEASE}.linux-{arch}")
}

/// The newer Go is in the cache.
pub(crate) fn is_cached() -> bool {
    tools_dir().is_some_and(|tools| tools.join("bin/go").is_file())
}

/// Fetches a newer Go with an older one.
pub(crate) fn fetch() -> Vec<Action> {
    let (Some(tools), Some(dir)) = (tools_dir(), dir()) else { return Vec::new() };
    let module = format!("golang.org/toolchain@{}", version());
    let dir = dir.display().to_string();
    let (bin, tool) = (format!("{dir}/bin"), format!("{dir}/pkg/tool"));
    let (go, programs) = (format!("{bin}/go"), format!("{}/bin/", tools.display()));
    vec![
        Action::new("go", &["mod", "download", &module])
            .env("GOMODCACHE", tools.join("go"))
            .env("GOFLAGS", "-mod=mod -modcacherw"),
        // A module's files are not executable.
        Action::new("chmod", &["-R", "+x", &bin, &tool]),
        // Where the lab looks first.
        Action::new("mkdir", &["-p", &programs]),
        Action::new("ln", &["-sf", &go, &programs]),
    ]
}
