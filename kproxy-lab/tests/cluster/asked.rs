//! What a ServiceAccount asks of the API server, as the server's own audit log has it.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use kproxy_lab::{ControlPlane, Lab};
use serde_json::{Value, json};

/// The requests of one ServiceAccount.
pub(crate) struct Asked {
    user: String,
    log: OnceCell<PathBuf>,
}

impl Asked {
    pub(crate) fn of(namespace: &str, name: &str) -> Self {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        Self { user, log: OnceCell::new() }
    }

    /// A control plane whose API server keeps a log of them.
    pub(crate) fn start_control_plane<'a>(&self, lab: &'a Lab) -> &'a ControlPlane {
        let (policy, log) = (lab.dir().join("audit-policy.json"), lab.dir().join("audit.log"));
        let rules = json!([{"level": "Metadata", "users": [self.user]}, {"level": "None"}]);
        let text = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
        fs::write(&policy, text.to_string()).unwrap();
        let flags = [
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", log.display()),
        ];
        self.log.set(log).unwrap();
        lab.start_control_plane_with(&flags.each_ref().map(String::as_str)).unwrap()
    }

    /// `verb resource.group` of each request so far.
    pub(crate) fn so_far(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.log.get().unwrap()).unwrap();
        // The last line may be half there.
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let events = complete.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .map(|event| {
                let of = &event["objectRef"];
                let words = [&event["verb"], &of["resource"], &of["apiGroup"]];
                named(words.map(|word| word.as_str().unwrap_or_default()))
            })
            .collect()
    }
}

/// What a ClusterRole among the objects grants, in the same words.
pub(crate) fn granted_by(objects: &[Value], role: &str) -> BTreeSet<String> {
    let is_it =
        |object: &&Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == role;
    let rules = objects.iter().find(is_it).unwrap()["rules"].as_array().unwrap();
    let words = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let verbs = words(&rule["verbs"]);
                all.extend(verbs.iter().map(|verb| named([verb, &resource, &group])));
            }
        }
    }
    all
}

fn named([verb, resource, group]: [&str; 3]) -> String {
    format!("{verb} {resource}.{group}").trim_end_matches('.').to_owned()
}
