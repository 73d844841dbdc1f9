//! The programs that are built from their Go modules: which, and where they are.

use std::env;
use std::path::{Path, PathBuf};

/// Release of kube-apiserver and kube-proxy.
const VERSION: &str = "v1.36.3";
/// The staging modules (k8s.io/api, …) of that release.
pub(super) const STAGING_VERSION: &str = "v0.36.3";

/// A program that is built from its Go module.
pub(super) struct Program {
    /// Its name.
    pub(super) name: &'static str,
    /// Its Go module.
    pub(super) module: &'static str,
    /// The module's version.
    pub(super) version: &'static str,
    /// Package of the program; `.` is the one that `source` makes.
    pub(super) package: &'static str,
    /// Go source whose imports keep the program's packages in go.mod.
    pub(super) source: &'static str,
}

const fn of_kubernetes(name: &'static str, package: &'static str) -> Program {
    let source = include_str!("kubernetes.go");
    Program { name, module: "k8s.io/kubernetes", version: VERSION, package, source }
}

/// All of them.
pub(super) const PROGRAMS: [Program; 3] = [
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

impl Program {
    /// Where it is, if it has been installed or built.
    pub(super) fn find(&self) -> Option<PathBuf> {
        asset(self.name).or_else(|| Some(self.folder()?.join(self.name)).filter(|p| p.is_file()))
    }

    /// Where it is built and kept: one folder for all programs of a module's version.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let name = self.module.rsplit('/').next()?;
        Some(kproxy_build::cache_dir()?.join(format!("{name}-{}", self.version)))
    }
}

/// A program in the folder that the tools of kubebuilder use.
pub(super) fn asset(program: &str) -> Option<PathBuf> {
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
