//! How kproxy is run on a node.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::binary;
use crate::lab::Lab;
use crate::proxy::handle::{Proxy, Ready};
use crate::proxy::{ProxySpec, Source, command_with};

/// What kproxy says when everything is programmed.
const IN_SYNC: &str = "in sync";

pub(super) fn prepare(lab: &Lab, node: &str, source: Source, spec: &ProxySpec) -> Result<Proxy> {
    let program = spec.binary.clone().map_or_else(binary::kproxy, Ok)?;
    let mut run = command_with(lab, node, &program, spec.capabilities.as_deref())?;
    run.arg("run");
    match source {
        Source::Api => {
            let kubeconfig = match &spec.kubeconfig {
                Some(path) => path,
                None => lab.control()?.kproxy_kubeconfig(),
            };
            run.arg("--kubeconfig").arg(kubeconfig)
        }
        Source::Manifests => run.arg("--manifests").arg(lab.manifests()),
    };
    let name = spec.node_name.as_deref().unwrap_or(node);
    run.args(["--hostname-override", name, "--cluster-cidr", &spec.cluster_cidr]);
    run.arg("--cgroup-root").arg(lab.node_cgroup(node));
    pins(&mut run, lab, node);
    run.args(&spec.arguments);

    let cleanup = cleanup(lab, node, &program)?;
    Ok(Proxy::new(lab, node, "kproxy", run, cleanup, Ready::Logged(IN_SYNC)))
}

/// Removes every trace of kproxy; with all of root's rights.
fn cleanup(lab: &Lab, node: &str, program: &Path) -> Result<Command> {
    let mut command = command_with(lab, node, program, None)?;
    command.arg("cleanup");
    pins(&mut command, lab, node);
    Ok(command)
}

fn pins(command: &mut Command, lab: &Lab, node: &str) {
    command.arg("--bpffs-root").arg(lab.bpffs(node)).arg("--run-dir").arg(lab.run_dir(node));
}
