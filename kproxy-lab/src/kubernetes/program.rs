//! The programs that are built from their Go modules: which, and where they are.

use std::env;
use std::path::{Path, PathBuf};

/// Release of kube-apiserver and kube-proxy.
const VERSION: &str = "v1.36.3";
/// The next release, of kube-proxy alone.
const NEXT_VERSION: &str = "v1.37.2";

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

const fn of_kubernetes(
    name: &'static str,
    version: &'static str,
    package: &'static str,
) -> Program {
    let source = include_str!("kubernetes.go");
    Program { name, module: "k8s.io/kubernetes", version, package, source }
}

const KUBE_PROXY: &str = "k8s.io/kubernetes/cmd/kube-proxy";

/// kube-proxy of the release after that of the others; built when it is asked for.
pub(super) const NEXT_KUBE_PROXY: Program = of_kubernetes("kube-proxy", NEXT_VERSION, KUBE_PROXY);

/// What renders `deploy/`; built when it is asked for.
pub(super) const KUSTOMIZE: Program = Program {
    name: "kustomize",
    module: "sigs.k8s.io/kustomize/kustomize/v5",
    version: "v5.8.2",
    package: "sigs.k8s.io/kustomize/kustomize/v5",
    source: include_str!("kustomize.go"),
};

/// As [`KUSTOMIZE`], for its chart.
pub(super) const HELM: Program = Program {
    name: "helm",
    module: "helm.sh/helm/v4",
    version: "v4.3.2",
    package: "helm.sh/helm/v4/cmd/helm",
    source: include_str!("helm.go"),
};

/// Those that the tests need.
pub(super) const PROGRAMS: [Program; 3] = [
    of_kubernetes("kube-apiserver", VERSION, "k8s.io/kubernetes/cmd/kube-apiserver"),
    of_kubernetes("kube-proxy", VERSION, KUBE_PROXY),
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
        asset(self.name).or_else(|| self.built())
    }

    /// Where it is, if it has been built.
    pub(super) fn built(&self) -> Option<PathBuf> {
        Some(self.folder()?.join(self.name)).filter(|path| path.is_file())
    }

    /// Version of the staging modules (k8s.io/api, …) of this release of Kubernetes.
    pub(super) fn staging_version(&self) -> String {
        self.version.replacen("v1.", "v0.", 1)
    }

    /// Where it is built and kept: one folder for all programs of a module's version.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        // Go has the major version as a module's last word from v2 on.
        let major = self.version.split('.').next()?;
        let name = self.module.trim_end_matches(major).trim_end_matches('/').rsplit('/').next()?;
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
        assert!(HELM.folder().unwrap().ends_with(format!("helm-{}", HELM.version)));
    }
}
