//! The real Kubernetes programs: found, or built from their Go module and cached.

mod build;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::binary;

/// Release of the programs.
pub const VERSION: &str = "v1.36.3";
/// The staging modules (k8s.io/api, …) of that release.
const STAGING_VERSION: &str = "v0.36.3";

/// The kube-apiserver: in `KUBEBUILDER_ASSETS`, in the cache, or built now (minutes; it tells its
/// progress on standard error).
///
/// # Errors
/// When it has to be built and cannot be.
pub fn kube_apiserver() -> Result<PathBuf> {
    find_or_build("kube-apiserver")
}

/// The kube-proxy: as for [`kube_apiserver`].
///
/// # Errors
/// When it has to be built and cannot be.
pub fn kube_proxy() -> Result<PathBuf> {
    find_or_build("kube-proxy")
}

/// The etcd server: in `KUBEBUILDER_ASSETS` or in PATH.
///
/// # Errors
/// When it is not installed.
pub fn etcd() -> Result<PathBuf> {
    asset("etcd")
        .or_else(|| binary::in_path("etcd"))
        .context("find etcd: install Debian's or Ubuntu's package etcd-server")
}

fn find_or_build(program: &str) -> Result<PathBuf> {
    if let Some(found) = asset(program) {
        return Ok(found);
    }
    let cache = kproxy_build::cache_dir().context("find the cache folder: set HOME")?;
    let folder = cache.join(format!("kubernetes-{VERSION}"));
    let cached = folder.join(program);
    if !cached.is_file() {
        build::build(&folder, program).with_context(|| {
            format!("build {program} {VERSION}; or name a folder that has it in KUBEBUILDER_ASSETS")
        })?;
    }
    Ok(cached)
}

/// A program in the folder that the tools of kubebuilder use.
fn asset(program: &str) -> Option<PathBuf> {
    let path = Path::new(&env::var_os("KUBEBUILDER_ASSETS")?).join(program);
    path.is_file().then_some(path)
}
