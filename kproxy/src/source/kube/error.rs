//! Why an API server cannot be watched at all.

use std::path::PathBuf;

use kube::config::{InClusterError, KubeconfigError};

/// What keeps the source from starting. An API server that does not answer is none: it is waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kubeconfig cannot be used.
    #[error("read the kubeconfig {}; give a usable one to --kubeconfig", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: KubeconfigError,
    },
    /// There is no kubeconfig, and no service account either.
    #[error(
        "use the service account of this pod; outside a cluster give --kubeconfig or --manifests"
    )]
    ServiceAccount(#[source] InClusterError),
    /// No client can be made.
    #[error("make a client for the API server {url}")]
    Client {
        /// Where the API server is.
        url: String,
        /// The reason.
        #[source]
        source: kube::Error,
    },
}
