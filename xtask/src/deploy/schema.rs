//! The values of the Helm chart and their schema.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::{files::read, report::Report};

/// The chart's folder.
pub(super) const CHART: &str = "deploy/helm/kproxy";

/// Values that operators give, as changes of the chart's own.
pub(super) fn good() -> Vec<(&'static str, Value)> {
    vec![
        ("nothing", json!({})),
        (
            "a cluster of both families",
            json!({
                "apiServer": {"host": "fd00::10", "port": 443},
                "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
            }),
        ),
        (
            "an image by digest",
            json!({
                "image": {"repository": "registry.example.org/kproxy", "digest":
                    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
                "imagePullSecrets": [{"name": "registry"}],
            }),
        ),
        (
            "a configuration and arguments",
            json!({
                "config": {"conntrack": {"tcpCloseWaitTimeout": "7m"}, "nodePortAddresses": ["primary"]},
                "extraArgs": ["--lb-algorithm=maglev"],
            }),
        ),
        (
            "pods that are opted out, and a private /run",
            json!({
                "optOut": {"namespaces": ["default"], "cidrs": ["10.9.0.0/16"]},
                "privateRun": true,
            }),
        ),
        (
            "monitoring",
            json!({
                "metrics": {
                    "address": "::", "port": 9099,
                    "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                    "prometheusRule": {"enabled": true},
                    "dashboard": {"enabled": true, "annotations": {"folder": "network"}},
                },
            }),
        ),
        (
            "other nodes, other pace",
            json!({
                "nodeSelector": {"kubernetes.io/os": "linux", "pool": "edge"},
                "tolerations": [{"key": "a", "operator": "Exists"}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "512Mi"}},
                "updateStrategy": {"type": "OnDelete"},
                "podLabels": {"team": "net"}, "podAnnotations": {"note": "x"},
                "namespace": {"create": true},
            }),
        ),
    ]
}

/// Values that are refused.
pub(super) fn bad() -> Vec<(&'static str, Value)> {
    vec![
        ("a key that there is not", json!({"clusterCidr": "10.244.0.0/16"})),
        ("no image", json!({"image": {"repository": ""}})),
        ("an image without tag and digest", json!({"image": {"tag": "", "digest": ""}})),
        ("a digest that is none", json!({"image": {"digest": "sha256:12"}})),
        ("a port as text", json!({"apiServer": {"port": "6443"}})),
        ("a port that there is not", json!({"apiServer": {"port": 65536}})),
        ("an address with a scheme", json!({"apiServer": {"host": "https://192.0.2.1"}})),
        ("an address without range", json!({"clusterCIDR": "10.244.0.0"})),
        ("three ranges", json!({"clusterCIDR": "10.0.0.0/8,fd00::/8,11.0.0.0/8"})),
        ("an argument that is none", json!({"extraArgs": ["lb-algorithm=maglev"]})),
        (
            "an argument with a value of its own",
            json!({"extraArgs": ["--cluster-cidr=10.0.0.0/8"]}),
        ),
        ("a field with a value of its own", json!({"config": {"clusterCIDR": "10.0.0.0/8"}})),
        ("another kind of configuration", json!({"config": {"kind": "KubeletConfiguration"}})),
        ("a namespace that is none", json!({"optOut": {"namespaces": ["Mesh_1"]}})),
        ("two kproxys on a node", json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}})),
        ("no node at a time", json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}})),
        ("metrics that nobody reaches", json!({"metrics": {"serviceMonitor": {"enabled": true}}})),
        (
            "metrics that nobody reaches, on IPv6",
            json!({"metrics": {"address": "::1", "serviceMonitor": {"enabled": true}}}),
        ),
        ("a label that is a number", json!({"podLabels": {"a": 1}})),
    ]
}

pub(super) fn check(root: &Path, report: &mut Report) {
    report.note("values and their schema", all(root));
}

fn all(root: &Path) -> Result<String> {
    let folder = root.join(CHART);
    let schema: Value = serde_json::from_str(&read(&folder.join("values.schema.json"))?)
        .context("read the schema")?;
    let values: Value =
        serde_saphyr::from_str(&read(&folder.join("values.yaml"))?).context("read the values")?;
    let validator = jsonschema::validator_for(&schema).map_err(|error| anyhow!("{error}"))?;
    let (good, bad) = (good(), bad());
    for (what, change) in &good {
        let merged = merged(&values, change);
        if let Err(error) = validator.validate(&merged) {
            bail!("{what} is refused: {}: {error}", error.instance_path());
        }
    }
    for (what, change) in &bad {
        if validator.is_valid(&merged(&values, change)) {
            bail!("{what} is taken");
        }
    }
    Ok(format!("{} taken, {} refused", good.len(), bad.len()))
}

fn merged(values: &Value, change: &Value) -> Value {
    let mut merged = values.clone();
    json_patch::merge(&mut merged, change);
    merged
}
