//! Service proxies on a lab's nodes: kproxy, or the real kube-proxy in its place.

mod handle;
mod kproxy;
mod kube_proxy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub use handle::Proxy;

use crate::binary;
use crate::lab::Lab;
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
    kind: ProxyKind,
    binary: Option<PathBuf>,
    arguments: Vec<OsString>,
    capabilities: Option<Vec<String>>,
    kubeconfig: Option<PathBuf>,
    node_name: Option<String>,
    cluster_cidr: String,
    config: Value,
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

impl Lab {
    /// Starts a proxy on a node and waits until it has programmed all that it knows.
    ///
    /// # Errors
    /// When it is not found, ends early or needs too long; the message holds the end of its log.
    pub fn start_proxy(&self, node: &str, spec: impl Into<ProxySpec>) -> Result<Arc<Proxy>> {
        let proxy = self.launch_proxy(node, spec)?;
        proxy.wait_ready()?;
        Ok(proxy)
    }

    /// Starts a proxy on a node and does not wait for it.
    ///
    /// # Errors
    /// When it is not found or cannot be started.
    pub fn launch_proxy(&self, node: &str, spec: impl Into<ProxySpec>) -> Result<Arc<Proxy>> {
        let spec = spec.into();
        self.node_number(node)?;
        if self.proxies().iter().any(|proxy| proxy.node() == node && proxy.is_running()) {
            bail!("node {node} has a running proxy; stop it first");
        }
        let proxy = Arc::new(match spec.kind {
            ProxyKind::Kproxy(source) => kproxy::prepare(self, node, source, &spec)?,
            ProxyKind::KubeProxy(mode) => kube_proxy::prepare(self, node, mode, &spec)?,
        });
        self.proxies().push(Arc::clone(&proxy));
        proxy.launch()?;
        Ok(proxy)
    }

    /// Starts a proxy of one kind on every node.
    ///
    /// # Errors
    /// As for [`Self::start_proxy`].
    pub fn start_proxies(&self, spec: impl Into<ProxySpec>) -> Result<Vec<Arc<Proxy>>> {
        let spec = spec.into();
        self.nodes().iter().map(|node| self.start_proxy(node, spec.clone())).collect()
    }

    /// A `kproxy` command on a node, such as `dump` or `status`, that looks at this node's pins.
    ///
    /// # Errors
    /// When there is no such node or no kproxy binary.
    pub fn kproxy_command(&self, node: &str, subcommand: &str) -> Result<Command> {
        let mut command = self.place(node)?.command(binary::kproxy()?)?;
        command.arg(subcommand).arg("--bpffs-root").arg(self.bpffs(node));
        if matches!(subcommand, "status" | "cleanup") {
            command.arg("--run-dir").arg(self.run_dir(node));
        }
        Ok(command)
    }
}

/// Puts `setpriv` in front of a program when its capabilities are limited. For root the bounding
/// set decides what exec() grants (capabilities(7)).
fn command_with(
    lab: &Lab,
    node: &str,
    program: &Path,
    capabilities: Option<&[String]>,
) -> Result<Command> {
    let place = lab.place(node)?;
    let Some(names) = capabilities else { return place.command(program) };
    let setpriv = binary::in_path("setpriv").context("find setpriv: install util-linux")?;
    let mut bounding = "--bounding-set=-all".to_owned();
    for name in names {
        bounding += &format!(",+{}", name.trim_start_matches("CAP_").to_lowercase());
    }
    let mut command = place.command(setpriv)?;
    command.args([&bounding, "--inh-caps=-all", "--ambient-caps=-all", "--"]).arg(program);
    Ok(command)
}
