//! Objects that somebody gives to be looked at, without following anything.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::allocated::Allocated;
use super::file::{self, Item, Key};
use super::folder::list;
use crate::model::{Problem, ServiceName};
use crate::source::{Event, Update, Verdict};

/// Services and EndpointSlices of some texts; other kinds are passed over.
#[derive(Default, Debug)]
pub(crate) struct Given {
    /// The objects, as the source would tell them. Of one that is there twice the last counts.
    pub events: Vec<Event>,
    /// Services among them.
    pub services: BTreeSet<ServiceName>,
    /// Services that EndpointSlices among them belong to.
    pub with_slices: BTreeSet<ServiceName>,
    /// What problems name the objects by.
    pub names: BTreeSet<String>,
    /// Texts and objects that cannot be read; the others count all the same.
    pub unreadable: Vec<Problem>,
}

impl Given {
    /// Takes a text. `name` tells JSON by its end; `before`: what the API server has given a Service.
    pub(crate) fn add(
        &mut self,
        name: &str,
        text: &str,
        before: &dyn Fn(&ServiceName) -> Option<Allocated>,
    ) {
        let complete = |object: &mut Value| {
            let text = |key: &str| object.pointer(key).and_then(Value::as_str);
            let namespace = text("/metadata/namespace").filter(|name| !name.is_empty());
            let Some(name) = text("/metadata/name") else { return };
            if let Some(before) = before(&ServiceName::new(namespace.unwrap_or("default"), name)) {
                before.fill(object);
            }
        };
        let contents = file::read_with(name, text, &complete);
        self.unreadable.extend(contents.problems);
        for (key, item) in contents.items {
            let told = key.to_string();
            let (is_unreadable, problems) = match (key, &*item) {
                (Key::Service(name), Item::Service(parsed)) => {
                    self.services.insert(name);
                    self.events.push(Event::Services(Update::Apply(parsed.clone())));
                    (parsed.verdict == Verdict::Unreadable, &parsed.problems)
                }
                (Key::Slice(_), Item::Slice(parsed)) => {
                    if let Verdict::Use(slice) = &parsed.verdict {
                        self.with_slices.insert(slice.service_name());
                    }
                    self.events.push(Event::Slices(Update::Apply(parsed.clone())));
                    (parsed.verdict == Verdict::Unreadable, &parsed.problems)
                }
                _ => continue,
            };
            self.names.insert(told);
            if is_unreadable {
                self.unreadable.extend(problems.iter().cloned());
            }
        }
    }
}

/// The manifests of a folder, by name; a file is itself.
///
/// # Errors
/// There is no such file or folder, or it cannot be read.
pub(crate) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.metadata()?.is_dir() {
        Ok(list(path)?.into_iter().map(|name| path.join(name)).collect())
    } else {
        Ok(vec![path.to_owned()])
    }
}
