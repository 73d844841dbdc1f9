//! Kustomize: each folder rendered, and the base as it stands.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use kproxy_lab::kubernetes;

use super::rendering::{Rendering, compare, documents, name_of};
use super::{files, report::Report};

/// Folders whose objects are changes of others' objects.
const PARTIAL: [&str; 2] = ["deploy/kubeadm", "deploy/overlays/in-place"];

/// Renders every folder that has a kustomization.
///
/// # Errors
/// When Kustomize cannot be built.
pub(super) fn render_all(root: &Path, report: &mut Report) -> Result<Vec<Rendering>> {
    let program = kubernetes::kustomize()?;
    let mut renderings = Vec::new();
    for folder in files::kustomizations(root)? {
        let name = folder.strip_prefix(root).unwrap_or(&folder).display().to_string();
        let rendered = output(Command::new(&program).arg("build").arg(&folder)).and_then(|text| {
            let partial = PARTIAL.contains(&name.as_str());
            let short = name.trim_start_matches("deploy").trim_start_matches('/').replace('/', "-");
            let short = format!("kustomize-{short}").trim_end_matches('-').to_owned();
            Ok(Rendering { partial, ..Rendering::parse(&short, &text)? })
        });
        let detail = rendered.as_ref().map(|rendering| {
            report.count(rendering.objects.len());
            format!("{} objects", rendering.objects.len())
        });
        report
            .note(&format!("kustomize build {name}"), detail.map_err(|e| anyhow::anyhow!("{e:#}")));
        renderings.extend(rendered);
    }
    let alike = base(root).and_then(|base| {
        let root = renderings.iter().find(|rendering| rendering.name == "kustomize");
        compare(&root.context("deploy/ is not rendered")?.sorted(true), &base.sorted(true))
    });
    report.note("deploy/ is deploy/kproxy.yaml", alike);
    let kept = renderings.iter().filter(|rendering| rendering.name != "kustomize-base");
    report.note(
        "overlays keep kproxy's objects",
        kept.clone().try_for_each(keeps).map(|()| kept.count()),
    );
    Ok(renderings)
}

/// The objects of deploy/kproxy.yaml.
pub(super) fn base(root: &Path) -> Result<Rendering> {
    let text = files::read(&root.join("deploy/kproxy.yaml"))?;
    let objects = documents(&text).context("read deploy/kproxy.yaml")?;
    Ok(Rendering { name: "base".to_owned(), objects, partial: false })
}

/// An overlay changes objects and adds some; it takes none away. kubeadm's has kube-proxy's DaemonSet alone.
fn keeps(rendering: &Rendering) -> Result<()> {
    let names: Vec<_> = rendering.objects.iter().map(name_of).collect();
    let own = ["DaemonSet kproxy/kproxy", "ConfigMap kproxy/kproxy", "ClusterRole /kproxy"];
    let kube_proxy = "DaemonSet kube-system/kube-proxy";
    let has = |name: &str| names.iter().any(|other| other == name);
    let complete = own.iter().all(|name| has(name)) || names == [kube_proxy];
    if !complete || rendering.partial != has(kube_proxy) {
        bail!("{} has {names:?}", rendering.name);
    }
    Ok(())
}

/// What a program prints; what it says besides when it fails.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("its output is no text")
}
