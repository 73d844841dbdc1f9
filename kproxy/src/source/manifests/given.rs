//! Objects that somebody gives to be looked at, without following anything.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

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
    /// What is wrong with texts or objects; the good parts count all the same.
    pub problems: Vec<Problem>,
}

impl Given {
    /// Takes a text. `name` tells JSON by its end.
    pub(crate) fn add(&mut self, name: &str, text: &str) {
        let contents = file::read(name, text);
        self.problems.extend(contents.problems);
        for (key, item) in contents.items {
            let problems = match (key, &*item) {
                (Key::Service(name), Item::Service(parsed)) => {
                    self.services.insert(name);
                    self.events.push(Event::Services(Update::Apply(parsed.clone())));
                    &parsed.problems
                }
                (Key::Slice(_), Item::Slice(parsed)) => {
                    if let Verdict::Use(slice) = &parsed.verdict {
                        self.with_slices.insert(slice.service_name());
                    }
                    self.events.push(Event::Slices(Update::Apply(parsed.clone())));
                    &parsed.problems
                }
                _ => continue,
            };
            self.problems.extend(problems.iter().cloned());
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
