//! Which proxy is started, and how.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::layout::CLUSTER_CIDRS;

/// Where kproxy reads its objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// The lab's API server.
    Api,
    /// The lab's folder of manifests.
    Manifests,
}

/// Which proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProxyKind {
    /// kproxy.
    Kproxy(Source),
    /// The real kube-proxy; needs the lab's API server.
    KubeProxy(Mode),
}

/// What kube-proxy programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

impl Mode {
    /// kube-proxy's own word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// A proxy to start.
#[derive(Clone, Debug)]
pub struct ProxySpec {
    pub(crate) kind: ProxyKind,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) capabilities: Option<Vec<String>>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) node_name: Option<String>,
    pub(crate) cluster_cidr: String,
    pub(crate) config: Value,
    pub(crate) beside: bool,
}

impl From<ProxyKind> for ProxySpec {
    fn from(kind: ProxyKind) -> Self {
        Self {
            kind,
            binary: None,
            arguments: Vec::new(),
            capabilities: None,
            kubeconfig: None,
            node_name: None,
            cluster_cidr: CLUSTER_CIDRS.to_owned(),
            config: Value::Null,
            beside: false,
        }
    }
}

impl ProxySpec {
    /// kproxy with the lab's usual arguments.
    pub fn kproxy(source: Source) -> Self {
        ProxyKind::Kproxy(source).into()
    }

    /// The real kube-proxy with the lab's usual settings.
    pub fn kube_proxy(mode: Mode) -> Self {
        ProxyKind::KubeProxy(mode).into()
    }

    /// kproxy with [`Source::Api`]: the rights of this file instead of the lab's usual ones.
    #[must_use]
    pub fn kubeconfig(mut self, path: &Path) -> Self {
        self.kubeconfig = Some(path.to_owned());
        self
    }

    /// The node's name, as the proxy is told (default: the name that the lab has for it).
    #[must_use]
    pub fn node_name(mut self, name: &str) -> Self {
        self.node_name = Some(name.to_owned());
        self
    }

    /// Ranges of the pods, as the proxy is told (default: those of the lab's pods); empty: none.
    #[must_use]
    pub fn cluster_cidr(mut self, ranges: &str) -> Self {
        ranges.clone_into(&mut self.cluster_cidr);
        self
    }

    /// kube-proxy: fields that its configuration has besides the lab's usual ones, or in their
    /// place.
    #[must_use]
    pub fn config(mut self, fields: Value) -> Self {
        self.config = fields;
        self
    }

    /// Starts beside another proxy that runs on the node.
    #[must_use]
    pub const fn beside(mut self) -> Self {
        self.beside = true;
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Grants these capabilities only: names as setpriv(1) has them, such as `bpf`.
    #[must_use]
    pub fn capabilities(mut self, names: &[&str]) -> Self {
        self.capabilities = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Runs another program under the same arguments.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }
}
