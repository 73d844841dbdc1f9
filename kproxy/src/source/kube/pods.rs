//! Pods of this node in the namespaces that are opted out of the socket path.
//!
//! A watch for each namespace: so the right to read pods need not be granted for any other.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream::select_all;
use kube::runtime::watcher;
use kube::{Api, Client};

use super::decoder::Decoder;
use super::watch::{Session, changes};
use crate::model::{Pod, PodName};
use crate::source::{Event, Object as _, Parsed, Update, convert, objects};

impl Session {
    /// Tells the Pods of all `namespaces` together; nothing before each of them has been listed.
    pub(super) async fn pods(
        &self,
        client: Client,
        node_name: &str,
        namespaces: &BTreeSet<String>,
    ) {
        if namespaces.is_empty() {
            return std::future::pending().await;
        }
        let selector = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
        let mut all = select_all(namespaces.iter().map(|namespace| {
            let api = Api::namespaced(client.clone(), namespace);
            changes::<objects::Pod>(api, selector.clone()).map(move |change| (namespace, change))
        }));
        let decoder = || Decoder::new(convert::pod, convert::pod_key);
        let mut decoders: BTreeMap<&str, Decoder<objects::Pod, Pod>> = BTreeMap::new();
        let mut lists = Lists::default();
        while let Some((namespace, change)) = all.next().await {
            let watch = format!("{} of namespace {namespace}", Pod::KIND);
            let decoder = decoders.entry(namespace).or_insert_with(decoder);
            let Some(change) = self.note(&watch, change).await else {
                decoder.restart();
                continue;
            };
            if let Some(update) = decoder.update(change)
                && let Some(update) = lists.join(namespace, update, namespaces.len())
                && self.events.send(Event::Pods(update)).await.is_err()
            {
                return;
            }
        }
    }
}

/// The Pods of each namespace that has been listed.
#[derive(Default)]
struct Lists(BTreeMap<String, BTreeMap<PodName, Parsed<Pod>>>);

impl Lists {
    /// Makes of a change to one namespace a change to all of them; `None` while some of the `count`
    /// are not known.
    fn join(&mut self, namespace: &str, update: Update<Pod>, count: usize) -> Option<Update<Pod>> {
        let list = self.0.entry(namespace.to_owned());
        match &update {
            Update::Reset(pods) => {
                let pods = pods.iter().map(|pod| (pod.key.clone(), pod.clone())).collect();
                list.insert_entry(pods);
            }
            Update::Apply(pod) => {
                list.or_default().insert(pod.key.clone(), pod.clone());
            }
            Update::Delete(name) => {
                list.or_default().remove(name);
            }
        }
        if self.0.len() < count {
            return None;
        }
        Some(match update {
            Update::Reset(_) => {
                Update::Reset(self.0.values().flat_map(BTreeMap::values).cloned().collect())
            }
            one => one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Verdict;

    fn pod(namespace: &str, name: &str) -> Parsed<Pod> {
        let key = PodName::new(namespace, name);
        Parsed { key, verdict: Verdict::Ignore, problems: Vec::new() }
    }

    fn names(update: Option<Update<Pod>>) -> Vec<String> {
        match update {
            Some(Update::Reset(pods)) => pods.iter().map(|pod| pod.key.to_string()).collect(),
            Some(Update::Apply(pod)) => vec![format!("+{}", pod.key)],
            Some(Update::Delete(name)) => vec![format!("-{name}")],
            None => Vec::new(),
        }
    }

    #[test]
    fn lists_of_namespaces_are_told_together_and_not_before_all_are_there() {
        let mut lists = Lists::default();
        let mut join = |namespace: &str, update| names(lists.join(namespace, update, 2));
        assert_eq!(join("a", Update::Reset(vec![pod("a", "x")])), [""; 0]);
        assert_eq!(join("a", Update::Apply(pod("a", "y"))), [""; 0]);
        assert_eq!(join("b", Update::Reset(vec![])), ["a/x", "a/y"]);
        assert_eq!(join("b", Update::Apply(pod("b", "z"))), ["+b/z"]);
        assert_eq!(join("a", Update::Delete(PodName::new("a", "x"))), ["-a/x"]);
        // One of them is listed again: the others stay.
        assert_eq!(join("a", Update::Reset(vec![pod("a", "v")])), ["a/v", "b/z"]);
    }
}
