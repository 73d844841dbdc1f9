//! Helm: the chart linted, rendered with good and bad values, and compared with the base.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use kproxy_lab::kubernetes;
use serde_json::{Value, json};

use super::kustomize::{base, output};
use super::rendering::{Rendering, compare};
use super::{report::Report, schema};

/// Helm and the chart.
struct Chart {
    helm: PathBuf,
    folder: PathBuf,
    /// Where values are written.
    scratch: PathBuf,
}

/// Checks the chart; what it renders with good values.
///
/// # Errors
/// When Helm cannot be built.
pub(super) fn check(root: &Path, report: &mut Report) -> Result<Vec<Rendering>> {
    let scratch = root.join("target/deploy");
    fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
    let chart = Chart { helm: kubernetes::helm()?, folder: root.join(schema::CHART), scratch };
    report.note("helm lint --strict", chart.lint(&json!({})));
    report.note("helm lint --strict finds what is bad", chart.lint_finds());

    let mut renderings = Vec::new();
    for (number, (what, values)) in schema::good().into_iter().enumerate() {
        let name = format!("helm-{number}");
        let rendered = chart.render(&name, &values);
        let detail = rendered.as_ref().map(|rendering| {
            report.count(rendering.objects.len());
            format!("{} objects ({name})", rendering.objects.len())
        });
        report
            .note(&format!("helm template: {what}"), detail.map_err(|e| anyhow::anyhow!("{e:#}")));
        renderings.extend(rendered);
    }
    let bad = schema::bad();
    let refused = bad.iter().try_for_each(|(what, values)| chart.refuses(what, values));
    report.note("helm template: bad values", refused.map(|()| format!("{} refused", bad.len())));

    let alike = base(root).and_then(|base| {
        let first = renderings.first().context("nothing is rendered")?;
        compare(&first.sorted(true), &base.sorted(false))?;
        let all = chart.render("helm-all", &json!({"namespace": {"create": true}}))?;
        compare(&all.sorted(true), &base.sorted(true))
    });
    report.note("the chart's own values are deploy/kproxy.yaml", alike);
    report.note("values go where they belong", lands(&renderings));
    Ok(renderings)
}

impl Chart {
    fn command(&self, verb: &[&str], values: &Value) -> Result<Command> {
        let file = self.scratch.join("values.json");
        fs::write(&file, values.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        let mut command = Command::new(&self.helm);
        command.args(verb).arg(&self.folder).args(["--namespace", "kproxy", "--values"]).arg(file);
        // Nothing of the user's own Helm.
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, self.scratch.join("helm").join(folder));
        }
        Ok(command)
    }

    fn lint(&self, values: &Value) -> Result<String> {
        let text = output(&mut self.command(&["lint", "--strict"], values)?)?;
        let last = text.lines().rfind(|line| !line.is_empty());
        last.map(str::to_owned).context("it says nothing")
    }

    fn lint_finds(&self) -> Result<&'static str> {
        match self.lint(&json!({"clusterCIDR": "everywhere"})) {
            Ok(said) => bail!("it says {said} of a cluster CIDR that is none"),
            Err(_refused) => Ok("a value against the schema"),
        }
    }

    fn render(&self, name: &str, values: &Value) -> Result<Rendering> {
        let text = output(&mut self.command(&["template", "kproxy"], values)?)?;
        Rendering::parse(name, &text)
    }

    fn refuses(&self, what: &str, values: &Value) -> Result<()> {
        match output(&mut self.command(&["template", "kproxy"], values)?) {
            Ok(_) => bail!("{what} is rendered"),
            Err(error) => {
                ensure!(format!("{error}").contains("schema"), "{what}: another error: {error}");
                Ok(())
            }
        }
    }
}

/// What the good values must lead to.
fn lands(renderings: &[Rendering]) -> Result<String> {
    let mut looked = 0;
    for (index, pointer, wanted) in [
        (1, "/spec/template/metadata/annotations/checksum~1config", json!(null)),
        (2, "/spec/template/spec/imagePullSecrets/0/name", json!("registry")),
        (3, "/spec/template/spec/containers/0/args/3", json!("--config=/etc/kproxy/config.yaml")),
        (3, "/spec/template/spec/containers/0/args/4", json!("--lb-algorithm=maglev")),
        (
            4,
            "/spec/template/spec/containers/0/args/3",
            json!("--socket-lb-skip-namespaces=default"),
        ),
        (
            4,
            "/spec/template/spec/containers/0/args/4",
            json!("--socket-lb-skip-pod-cidrs=10.9.0.0/16"),
        ),
        (4, "/spec/template/spec/containers/0/volumeMounts/2/mountPropagation", json!("None")),
        (5, "/spec/template/spec/containers/0/args/3", json!("--metrics-bind-address=[::]:9099")),
        (6, "/spec/updateStrategy", json!({"type": "OnDelete"})),
        (6, "/spec/template/metadata/labels/team", json!("net")),
        (6, "/spec/template/spec/nodeSelector/pool", json!("edge")),
    ] {
        let rendering =
            renderings.get(index).with_context(|| format!("helm-{index} is missing"))?;
        let set = rendering.objects.iter().find(|object| object["kind"] == "DaemonSet");
        let found = set.and_then(|set| set.pointer(pointer));
        // A checksum is there, whatever it is.
        let fits = found.is_some_and(|found| wanted.is_null() || *found == wanted);
        ensure!(fits, "{}: {pointer} is {found:?}, not {wanted}", rendering.name);
        looked += 1;
    }
    Ok(format!("{looked} looked at"))
}
