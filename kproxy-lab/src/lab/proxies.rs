//! Starting proxies on the nodes of a lab.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::Lab;
use crate::binary;
use crate::proxy::kproxy::{self, Objects};
use crate::proxy::{Node, Proxy, ProxyKind, ProxySpec, Source, kube_proxy};

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
        let has_one =
            || self.proxies().iter().any(|proxy| proxy.node() == node && proxy.is_running());
        if !spec.beside && has_one() {
            bail!("node {node} has a running proxy; stop it first");
        }
        let on =
            Node { names: &self.names, host: self.place(node)?, cgroup: self.node_cgroup(node) };
        let proxy = Arc::new(match spec.kind {
            ProxyKind::Kproxy(source) => {
                kproxy::prepare(&on, &self.objects(source, &spec)?, &spec)?
            }
            ProxyKind::KubeProxy(mode) => {
                kube_proxy::prepare(&on, mode, self.control()?.kube_proxy_kubeconfig(), &spec)?
            }
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
        self.kproxy_command_of(&binary::kproxy()?, node, subcommand)
    }

    /// As [`Self::kproxy_command`], of another build.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn kproxy_command_of(
        &self,
        program: &Path,
        node: &str,
        subcommand: &str,
    ) -> Result<Command> {
        let mut command = self.place(node)?.command(program)?;
        command.arg(subcommand).arg("--bpffs-root").arg(self.bpffs(node));
        const WITH_RUN_DIR: [&str; 7] =
            ["status", "check", "cleanup", "explain", "verify", "diff", "bugreport"];
        if WITH_RUN_DIR.contains(&subcommand) {
            command.arg("--run-dir").arg(self.run_dir(node));
        }
        Ok(command)
    }

    fn objects(&self, source: Source, spec: &ProxySpec) -> Result<Objects> {
        Ok(match (source, &spec.kubeconfig) {
            (Source::Manifests, _) => Objects::Manifests(self.manifests()),
            (Source::Api, Some(file)) => Objects::Kubeconfig(file.clone()),
            (Source::Api, None) => {
                Objects::Kubeconfig(self.control()?.kproxy_kubeconfig().to_owned())
            }
        })
    }
}
