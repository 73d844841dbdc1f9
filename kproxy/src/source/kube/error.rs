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
    /// The kubeconfig cannot be understood. Only where: what stands there may be a token.
    #[error(
        "the kubeconfig {} cannot be understood at line {line}, column {column}; give a usable one to \
         --kubeconfig", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
    },
    /// The address of the API server is none.
    #[error(
        "--master `{url}` is no address of an API server; write it like https://192.0.2.1:6443"
    )]
    Url {
        /// What was typed.
        url: String,
        /// What is wrong with it.
        source: hyper::http::uri::InvalidUri,
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

impl Error {
    /// A kubeconfig cannot be used.
    pub(super) fn of_kubeconfig(path: PathBuf, source: KubeconfigError) -> Self {
        match source {
            KubeconfigError::Parse(error) => {
                let place = error.location();
                let (line, column) = place.map_or((1, 1), |place| (place.line(), place.column()));
                Self::Malformed { path, line, column }
            }
            source => Self::Kubeconfig { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;
    use crate::errors::with_causes;

    #[test]
    fn a_kubeconfig_that_cannot_be_understood_shows_no_secret() {
        for (text, place) in [
            ("users:\n- name: a\n  user: {token: [s3cret]}\n", "line 3"),
            ("users:\n- name: a\n  user: s3cret\n", "line 3"),
            ("users:\n- name: a\n  user:\n    token: s3cret\n   tokenFile: [\n", "line 5"),
        ] {
            let error = Kubeconfig::from_yaml(text).unwrap_err();
            let told = with_causes(&Error::of_kubeconfig("/etc/kc".into(), error));
            assert!(told.starts_with("the kubeconfig /etc/kc cannot be understood at "), "{told}");
            assert!(told.contains(place) && !told.contains("s3cret"), "{text}: {told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
}
