//! The real Kubernetes programs: found, or built from their Go module and cached.

mod build;
mod program;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::binary;
use program::{HELM, KUSTOMIZE, NEXT_KUBE_PROXY, PROGRAMS, Program, asset};

/// kube-proxy's DaemonSet as kubeadm makes it.
pub const KUBEADM_KUBE_PROXY: &str = include_str!("kubeadm.yaml");

/// Module of the Prometheus operator, whose kinds of objects are defined by files of it.
const PROMETHEUS_OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// The kube-apiserver: in `KUBEBUILDER_ASSETS`, in the cache, or built now (minutes; it tells its
/// progress on standard error).
///
/// # Errors
/// When it has to be built and cannot be.
pub(crate) fn kube_apiserver() -> Result<PathBuf> {
    find_or_build(&PROGRAMS[0])
}

/// The kube-proxy: as for [`kube_apiserver`].
///
/// # Errors
/// When it has to be built and cannot be.
pub(crate) fn kube_proxy() -> Result<PathBuf> {
    find_or_build(&PROGRAMS[1])
}

/// The kube-proxy of the next release: in the cache, or built now.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn next_kube_proxy() -> Result<PathBuf> {
    NEXT_KUBE_PROXY.built().map_or_else(|| build(&NEXT_KUBE_PROXY), Ok)
}

/// Kustomize: in the cache, or built now.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn kustomize() -> Result<PathBuf> {
    KUSTOMIZE.built().map_or_else(|| build(&KUSTOMIZE), Ok)
}

/// Helm: in the cache, or built now.
///
/// # Errors
/// When it has to be built and cannot be.
pub fn helm() -> Result<PathBuf> {
    HELM.built().map_or_else(|| build(&HELM), Ok)
}

/// Definitions of the kinds ServiceMonitor and PrometheusRule, as YAML.
///
/// # Errors
/// When the module cannot be fetched.
pub fn prometheus_operator_kinds() -> Result<Vec<String>> {
    let source = build::download(PROMETHEUS_OPERATOR)?;
    ["servicemonitors", "prometheusrules"]
        .map(|kind| {
            let name = format!("example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml");
            let path = source.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        })
        .into_iter()
        .collect()
}

/// CoreDNS: as for [`kube_apiserver`].
///
/// # Errors
/// When it has to be built and cannot be.
pub fn coredns() -> Result<PathBuf> {
    find_or_build(&PROGRAMS[2])
}

/// The etcd server: in `KUBEBUILDER_ASSETS` or in PATH.
///
/// # Errors
/// When it is not installed.
pub(crate) fn etcd() -> Result<PathBuf> {
    asset("etcd")
        .or_else(|| binary::in_path("etcd"))
        .context("find etcd: install Debian's or Ubuntu's package etcd-server")
}

/// Names of the programs that have to be built yet.
pub fn not_built() -> Vec<&'static str> {
    PROGRAMS.iter().filter(|program| program.find().is_none()).map(|program| program.name).collect()
}

/// Builds every program that is not there; tells its progress on standard error.
///
/// # Errors
/// Without a network, or when the compiler fails.
pub fn build_all() -> Result<()> {
    PROGRAMS.iter().try_for_each(|program| find_or_build(program).map(drop))
}

fn find_or_build(program: &Program) -> Result<PathBuf> {
    program.find().map_or_else(|| build(program), Ok)
}

fn build(program: &Program) -> Result<PathBuf> {
    let folder = program.folder().context("find the cache folder: set HOME")?;
    build::build(&folder, program).with_context(|| {
        format!(
            "build {} {}; or name a folder that has it in KUBEBUILDER_ASSETS",
            program.name, program.version
        )
    })
}
