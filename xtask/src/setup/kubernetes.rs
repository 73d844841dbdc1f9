//! The real kube-apiserver and kube-proxy.

use std::{env, path::PathBuf};

use anyhow::Result;
use kproxy_build::cache_dir;
use kproxy_lab::kubernetes::{VERSION, kube_apiserver, kube_proxy};

/// Each of the two is in `KUBEBUILDER_ASSETS` or in the cache.
pub(crate) fn is_built() -> bool {
    let cache = cache_dir().map(|dir| dir.join(format!("kubernetes-{VERSION}")));
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    ["kube-apiserver", "kube-proxy"].iter().all(|program| {
        [&assets, &cache].into_iter().flatten().any(|dir| dir.join(program).is_file())
    })
}

/// Builds what is missing; tells its progress on standard error.
///
/// # Errors
/// Without a network, or when the compiler fails.
pub(crate) fn build() -> Result<()> {
    kube_apiserver()?;
    kube_proxy().map(drop)
}
