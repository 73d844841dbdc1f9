//! Each rendering on the real API server of a lab: it knows every field, and partial objects leave the rest alone.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kproxy_lab::{Api, Lab, kubernetes, poll_until};
use serde_json::{Value, json};

use super::rendering::{Rendering, name_of};
use super::report::Report;
use crate::say;

/// Namespace and name of kube-proxy's DaemonSet.
const KUBE_PROXY: (&str, &str) = ("kube-system", "kube-proxy");
/// How long the API server may take to serve a kind that it was just told of.
const NEW_KIND: Duration = Duration::from_secs(60);

/// Applies everything, one after the other, as an upgrade from one to the next.
///
/// # Errors
/// When the lab cannot be made.
pub(super) fn check(renderings: &[Rendering], report: &mut Report) -> Result<()> {
    say::line("starting one");
    let lab = Lab::builder().nodes(1).build()?;
    let api = lab.start_control_plane()?.api();
    let definitions = kubernetes::prometheus_operator_kinds()?;
    for text in &definitions {
        api.apply(text).context("define the kinds of the Prometheus operator")?;
    }
    let known = || Ok(api.list("monitoring.coreos.com/v1/ServiceMonitor", "").is_ok());
    ensure!(
        poll_until(NEW_KIND, Duration::from_millis(200), known, |known| *known)?,
        "the API server does not serve the kinds of the Prometheus operator"
    );
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kproxy"}});
    api.apply_object(namespace)?;
    for rendering in renderings {
        let applied = apply(api, rendering);
        report.note(&format!("apply {}", rendering.name), applied);
    }
    report.note("a field that there is not is refused", refuses(api, renderings));
    Ok(())
}

fn apply(api: &Api, rendering: &Rendering) -> Result<String> {
    let (namespace, name) = KUBE_PROXY;
    if rendering.partial {
        // By somebody else, as kubeadm is.
        if api.get("apps/v1/DaemonSet", namespace, name)?.is_some() {
            api.delete("apps/v1/DaemonSet", namespace, name)?;
        }
        let text = kubernetes::KUBEADM_KUBE_PROXY;
        api.create(serde_json::to_value(serde_saphyr::from_str::<Value>(text)?)?)?;
    }
    for object in &rendering.objects {
        let before = name_of(object);
        let is_kube_proxy = object["metadata"]["name"] == name;
        let applied = api.apply_object(object.clone()).with_context(|| before.clone())?;
        if is_kube_proxy {
            kept(&applied).with_context(|| before)?;
        }
    }
    Ok(format!("{} objects", rendering.objects.len()))
}

/// Of kubeadm's DaemonSet only what the partial object names has changed.
fn kept(set: &Value) -> Result<()> {
    let pod = &set["spec"]["template"]["spec"];
    let [container] = pod["containers"].as_array().map_or(&[][..], Vec::as_slice) else {
        bail!("its containers are {}", pod["containers"]);
    };
    ensure!(container["command"][0] == "/usr/local/bin/kube-proxy", "its command has changed");
    ensure!(pod["nodeSelector"]["kubernetes.io/os"] == "linux", "its node selector is replaced");
    ensure!(pod["serviceAccountName"] == "kube-proxy", "its account has changed");
    let put_away = pod["nodeSelector"].get("kproxy.example.org/never").is_some();
    let replaced = container["image"].as_str().is_some_and(|image| image.starts_with("kproxy"));
    ensure!(put_away != replaced, "put away: {put_away}, replaced: {replaced}");
    Ok(())
}

/// That what is applied above is looked at.
fn refuses(api: &Api, renderings: &[Rendering]) -> Result<String> {
    let mut count = 0;
    for kind in ["DaemonSet", "ServiceMonitor", "PrometheusRule"] {
        let of_kind = |object: &&Value| object["kind"] == kind;
        let mut all = renderings.iter().flat_map(|rendering| &rendering.objects);
        let mut object = all.find(of_kind).with_context(|| format!("no {kind}"))?.clone();
        object["spec"]["unheardOf"] = true.into();
        if api.apply_object(object).is_ok() {
            bail!("the API server takes a {kind} with spec.unheardOf");
        }
        count += 1;
    }
    Ok(format!("{count} kinds"))
}
