//! The real Kubernetes programs: found, or built from their Go module and cached.

mod build;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::binary;

/// Release of kube-apiserver and kube-proxy.
pub const VERSION: &str = "v1.36.3";
/// The staging modules (k8s.io/api, …) of that release.
const STAGING_VERSION: &str = "v0.36.3";

/// A program that is built from its Go module.
struct Program {
    name: &'static str,
    module: &'static str,
    version: &'static str,
    /// Package of the program; `.` is the one that `source` makes.
    package: &'static str,
    /// Go source whose imports keep the program's packages in go.mod.
    source: &'static str,
}

const fn of_kubernetes(name: &'static str, package: &'static str) -> Program {
    let source = include_str!("kubernetes.go");
    Program { name, module: "k8s.io/kubernetes", version: VERSION, package, source }
}

/// All of them.
const PROGRAMS: [Program; 3] = [
    of_kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    of_kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    // With the plugins of a cluster's DNS: all of them, with the cloud providers', would take
    // several times as long.
    Program {
        name: "coredns",
        module: "github.com/coredns/coredns",
        version: "v1.15.0",
        package: ".",
        source: include_str!("coredns.go"),
    },
];

/// The kube-apiserver: in `KUBEBUILDER_ASSETS`, in the cache, or built now (minutes; it tells its
/// progress on standard error).
///
/// # Errors
/// When it has to be built and cannot be.
pub fn kube_apiserver() -> Result<PathBuf> {
    PROGRAMS[0].find_or_build()
}

/// The kube-proxy: as for [`kube_apiserver`].
///
/// # Errors
/// When it has to be built and cannot be.
pub fn kube_proxy() -> Result<PathBuf> {
    PROGRAMS[1].find_or_build()
}

/// CoreDNS: as for [`kube_apiserver`].
///
/// # Errors
/// When it has to be built and cannot be.
pub fn coredns() -> Result<PathBuf> {
    PROGRAMS[2].find_or_build()
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

/// Names of the programs that have to be built yet.
pub fn not_built() -> Vec<&'static str> {
    PROGRAMS.iter().filter(|program| program.find().is_none()).map(|program| program.name).collect()
}

/// Builds every program that is not there; tells its progress on standard error.
///
/// # Errors
/// Without a network, or when the compiler fails.
pub fn build_all() -> Result<()> {
    PROGRAMS.iter().try_for_each(|program| program.find_or_build().map(drop))
}

impl Program {
    fn find(&self) -> Option<PathBuf> {
        asset(self.name).or_else(|| Some(self.folder()?.join(self.name)).filter(|p| p.is_file()))
    }

    fn find_or_build(&self) -> Result<PathBuf> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        let folder = self.folder().context("find the cache folder: set HOME")?;
        build::build(&folder, self).with_context(|| {
            format!(
                "build {} {}; or name a folder that has it in KUBEBUILDER_ASSETS",
                self.name, self.version
            )
        })
    }

    /// Where it is built and kept: one folder for all programs of a module's version.
    fn folder(&self) -> Option<PathBuf> {
        let name = self.module.rsplit('/').next()?;
        Some(kproxy_build::cache_dir()?.join(format!("{name}-{}", self.version)))
    }
}

/// A program in the folder that the tools of kubebuilder use.
fn asset(program: &str) -> Option<PathBuf> {
    let path = Path::new(&env::var_os("KUBEBUILDER_ASSETS")?).join(program);
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_one_module_share_a_folder() {
        let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names, ["kube-apiserver", "kube-proxy", "coredns"]);
        let folders: Vec<_> = PROGRAMS.iter().map(|program| program.folder().unwrap()).collect();
        assert!(folders[0].ends_with(format!("kubernetes-{VERSION}")), "{folders:?}");
        assert!(folders[0] == folders[1] && folders[2].ends_with("coredns-v1.15.0"), "{folders:?}");
    }
}
