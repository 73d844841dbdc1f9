//! Objects as operators apply them, and how they differ.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Objects as an operator applies them.
pub(super) struct Rendering {
    /// Short, and the name of its file.
    pub(super) name: String,
    pub(super) objects: Vec<Value>,
    /// It changes objects of others, and is applied by server-side apply alone.
    pub(super) partial: bool,
}

impl Rendering {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self> {
        let objects = documents(text).with_context(|| format!("read the rendering {name}"))?;
        if objects.is_empty() {
            bail!("the rendering {name} has no object");
        }
        Ok(Self { name: name.to_owned(), objects, partial: false })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.yaml", self.name));
        let text = kproxy_lab::manifest::yaml(self.objects.iter().cloned())?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Its objects without the Namespace, in the order of their names.
    pub(super) fn sorted(&self, with_namespace: bool) -> Vec<&Value> {
        let mut objects: Vec<_> = self
            .objects
            .iter()
            .filter(|object| with_namespace || object["kind"] != "Namespace")
            .collect();
        objects.sort_by_key(|object| name_of(object));
        objects
    }
}

/// The objects of a YAML text.
pub(super) fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// `Kind namespace/name`.
pub(super) fn name_of(object: &Value) -> String {
    let word = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (word("/kind"), word("/metadata/name"));
    format!("{kind} {}/{name}", word("/metadata/namespace"))
}

/// Says where two lists of objects differ.
pub(super) fn compare(ours: &[&Value], base: &[&Value]) -> Result<String> {
    let names = |list: &[&Value]| list.iter().map(|object| name_of(object)).collect::<Vec<_>>();
    let (left, right) = (names(ours), names(base));
    if left != right {
        bail!("the objects are {left:?}, not {right:?}");
    }
    for (left, right) in ours.iter().zip(base) {
        if left != right {
            let patch = json_patch::diff(right, left);
            bail!("{}: {}", name_of(left), serde_json::to_string(&patch)?);
        }
    }
    Ok(format!("{} objects alike", ours.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let one = serde_json::json!({"kind": "A", "metadata": {"name": "x"}, "spec": {"a": 1}});
        let mut other = one.clone();
        assert!(compare(&[&one], &[&other]).is_ok());
        other["spec"]["a"] = 2.into();
        let said = compare(&[&one], &[&other]).unwrap_err().to_string();
        assert!(said.contains("A /x") && said.contains("/spec/a"), "{said}");
        assert!(compare(&[], &[&one]).is_err());
    }
}
