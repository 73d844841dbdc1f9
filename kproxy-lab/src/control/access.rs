//! Who may do what with a lab's API server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::random;

/// ServiceAccount in kube-system, ClusterRole and ClusterRoleBinding of the lab's kproxy.
pub(super) const KPROXY: &str = "kproxy-lab";

/// What kproxy has to read. Not the manifest that is deployed: tests compare the two by running
/// kproxy with either.
pub(super) const KPROXY_RIGHTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: kproxy-lab, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: kproxy-lab}
rules:
- apiGroups: ['']
  resources: [services, nodes]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [servicecidrs]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kproxy-lab}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kproxy-lab}
subjects:
- {kind: ServiceAccount, name: kproxy-lab, namespace: kube-system}
";

/// Files that let clients in.
#[derive(Debug)]
pub(super) struct Access {
    dir: PathBuf,
    server: SocketAddr,
    authority: PathBuf,
    /// The API server's list of tokens.
    pub(super) tokens: PathBuf,
    /// kubeconfig of a user with all rights.
    pub(super) admin: PathBuf,
    /// kubeconfig of the user `system:kube-proxy`.
    pub(super) kube_proxy: PathBuf,
}

impl Access {
    pub(super) fn make(dir: &Path, server: SocketAddr, authority: &Path) -> Result<Self> {
        let (admin, kube_proxy) = (random_token(), random_token());
        let tokens = dir.join("tokens.csv");
        // Token, user, user id, groups (kube-apiserver's static token file).
        let text = format!(
            "{admin},admin,admin,\"system:masters\"\n\
             {kube_proxy},system:kube-proxy,kube-proxy,\n"
        );
        fs::write(&tokens, text).with_context(|| format!("write {}", tokens.display()))?;
        let mut access = Self {
            dir: dir.to_owned(),
            server,
            authority: authority.to_owned(),
            tokens,
            admin: PathBuf::new(),
            kube_proxy: PathBuf::new(),
        };
        access.admin = access.write("admin", &admin)?;
        access.kube_proxy = access.write("kube-proxy", &kube_proxy)?;
        Ok(access)
    }

    /// Writes a kubeconfig; its path.
    pub(super) fn write(&self, name: &str, token: &str) -> Result<PathBuf> {
        self.write_for(name, token, &format!("https://{}", self.server))
    }

    /// As [`Self::write`], for a server elsewhere.
    pub(super) fn write_for(&self, name: &str, token: &str, server: &str) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "lab",
                "cluster": {
                    "server": server,
                    "certificate-authority": self.authority,
                },
            }],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
            "current-context": "lab",
        });
        let file = self.dir.join(format!("{name}.kubeconfig"));
        let text = serde_saphyr::to_string(&config).context("write a kubeconfig")?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }
}

/// Lives as long as a lab whose API server nobody outside can reach.
fn random_token() -> String {
    (0..2).map(|_| format!("{:016x}", random::bits())).collect()
}
