//! The real kube-apiserver and kube-proxy.

use std::{env, path::PathBuf};

use kproxy_build::cache_dir;

/// The release that kproxy is compared with.
const RELEASE: &str = "v1.36.3";

/// Both programs are in the cache, or the API server is in KUBEBUILDER_ASSETS and kube-proxy in
/// the cache.
pub(crate) fn is_built() -> bool {
    let cache = cache_dir().map(|dir| dir.join(format!("kubernetes-{RELEASE}")));
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let has = |dir: &Option<PathBuf>, program: &str| {
        dir.as_ref().is_some_and(|dir| dir.join(program).is_file())
    };
    has(&cache, "kube-proxy") && (has(&cache, "kube-apiserver") || has(&assets, "kube-apiserver"))
}
