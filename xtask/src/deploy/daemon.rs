//! The arguments and the configuration of each rendering, read by kproxy itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::kustomize::output;
use super::rendering::Rendering;
use super::report::Report;

/// Where the chart mounts the configuration.
const CONFIG: &str = "/etc/kproxy/config.yaml";

/// Has `kproxy config` read what each DaemonSet starts.
pub(super) fn check(folder: &Path, renderings: &[Rendering], report: &mut Report) {
    let read = kproxy_lab::kproxy().and_then(|program| {
        let mut count = 0;
        for rendering in renderings {
            let find = |kind: &str| {
                let is_it = |object: &&Value| {
                    object["kind"] == kind && object["metadata"]["name"] == "kproxy"
                };
                rendering.objects.iter().find(is_it)
            };
            let (Some(set), Some(map)) = (find("DaemonSet"), find("ConfigMap")) else { continue };
            let file = folder.join("config.yaml");
            let arguments = arguments(set, &map["data"], &file)
                .with_context(|| format!("arguments of {}", rendering.name))?;
            let said = output(Command::new(&program).arg("config").args(arguments))
                .with_context(|| format!("kproxy refuses those of {}", rendering.name))?;
            ensure!(said.contains("clusterCIDR"), "`kproxy config` says {said}");
            count += 1;
        }
        ensure!(count > 10, "only {count} DaemonSets of kproxy");
        Ok(format!("those of {count} DaemonSets"))
    });
    report.note("arguments and configuration", read);
}

/// What the container is started with, its variables filled in, and its configuration written to a file here.
fn arguments(set: &Value, data: &Value, file: &Path) -> Result<Vec<String>> {
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let all = container["args"].as_array().context("it has none")?;
    let all: Option<Vec<&str>> = all.iter().map(Value::as_str).collect();
    let all = all.context("one is no text")?;
    ensure!(all.first() == Some(&"run"), "the first is no `run`");
    let mut words = Vec::new();
    for word in &all[1..] {
        let mut word = word.replace("$(NODE_NAME)", "n1");
        for (name, value) in data.as_object().context("the ConfigMap has no data")? {
            word = word.replace(&format!("$({name})"), value.as_str().unwrap_or_default());
        }
        ensure!(!word.contains("$("), "a variable that there is not: {word}");
        if word == format!("--config={CONFIG}") {
            let text = data["config.yaml"].as_str().context("the ConfigMap has no config.yaml")?;
            fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
            word = format!("--config={}", file.display());
        }
        words.push(word);
    }
    Ok(words)
}
