//! How kproxy is run on a node.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::handle::{Proxy, Ready};
use super::node::Node;
use super::spec::ProxySpec;
use crate::binary;

/// What kproxy says when everything is programmed.
const IN_SYNC: &str = "in sync";

/// Where it reads its objects.
pub(crate) enum Objects {
    /// An API server, as this file says.
    Kubeconfig(PathBuf),
    /// A folder.
    Manifests(PathBuf),
}

/// A kproxy on a node, to be started.
pub(crate) fn prepare(node: &Node<'_>, objects: &Objects, spec: &ProxySpec) -> Result<Proxy> {
    let program = spec.binary.clone().map_or_else(binary::kproxy, Ok)?;
    let mut run = node.command(&program, spec.capabilities.as_deref())?;
    run.arg("run");
    match objects {
        Objects::Kubeconfig(file) => run.arg("--kubeconfig").arg(file),
        Objects::Manifests(folder) => run.arg("--manifests").arg(folder),
    };
    let name = spec.node_name.as_deref().unwrap_or(node.name());
    run.args(["--hostname-override", name, "--cluster-cidr", &spec.cluster_cidr]);
    run.arg("--cgroup-root").arg(&node.cgroup);
    pins(&mut run, node);
    run.args(&spec.arguments);

    let cleanup = cleanup(node, &program)?;
    Ok(Proxy::new(node, "kproxy", run, cleanup, Ready::Logged(IN_SYNC)))
}

/// Removes every trace of kproxy; with all of root's rights.
fn cleanup(node: &Node<'_>, program: &Path) -> Result<Command> {
    let mut command = node.command(program, None)?;
    command.arg("cleanup");
    pins(&mut command, node);
    Ok(command)
}

fn pins(command: &mut Command, node: &Node<'_>) {
    let (bpffs, run_dir) = (node.names.bpffs(node.name()), node.names.run_dir(node.name()));
    command.arg("--bpffs-root").arg(bpffs).arg("--run-dir").arg(run_dir);
}
