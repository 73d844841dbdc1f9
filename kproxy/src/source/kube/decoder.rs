//! Decodes what a watch brings: events to updates of complete lists and single objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::watcher;

use crate::source::{Object, Parsed, Update};

/// Makes updates of a watch's events; a list is held back until it is complete.
pub(super) struct Decoder<K, T: Object> {
    convert: fn(&K) -> Parsed<T>,
    key: fn(&ObjectMeta) -> T::Key,
    listing: Vec<Parsed<T>>,
}

impl<K: Resource, T: Object> Decoder<K, T> {
    pub(super) fn new(convert: fn(&K) -> Parsed<T>, key: fn(&ObjectMeta) -> T::Key) -> Self {
        Self { convert, key, listing: Vec::new() }
    }

    /// The update that an event makes, if any. Objects that do not decode are named and stop nothing.
    pub(super) fn update(
        &mut self,
        event: watcher::Event<DeserializeGuard<K>>,
    ) -> Option<Update<T>> {
        match event {
            watcher::Event::Init => {
                self.restart();
                None
            }
            watcher::Event::InitApply(object) => {
                let parsed = self.parse(&object);
                self.listing.push(parsed);
                None
            }
            watcher::Event::InitDone => Some(Update::Reset(std::mem::take(&mut self.listing))),
            watcher::Event::Apply(object) => Some(Update::Apply(self.parse(&object))),
            watcher::Event::Delete(object) => Some(Update::Delete((self.key)(object.meta()))),
        }
    }

    /// The list broke off and will start again.
    pub(super) fn restart(&mut self) {
        self.listing.clear();
    }

    fn parse(&self, object: &DeserializeGuard<K>) -> Parsed<T> {
        match &object.0 {
            Ok(object) => (self.convert)(object),
            Err(InvalidObject { error, metadata }) => {
                Parsed::unreadable((self.key)(metadata), error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::source::objects::Service;
    use serde_json::json;

    use super::*;
    use crate::source::{Verdict, convert};

    fn object(name: &str, port: serde_json::Value) -> DeserializeGuard<Service> {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": name},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]},
        }))
        .unwrap()
    }

    #[test]
    fn lists_are_handed_over_whole_and_start_afresh() {
        let mut decoder = Decoder::new(convert::service, convert::service_key);
        assert_eq!(decoder.update(watcher::Event::InitApply(object("a", json!(80)))), None);
        // What came before the list broke off must not be in the next one.
        decoder.restart();
        assert_eq!(decoder.update(watcher::Event::InitApply(object("b", json!(80)))), None);
        let Some(Update::Reset(list)) = decoder.update(watcher::Event::InitDone) else { panic!() };
        let names: Vec<_> = list.iter().map(|parsed| parsed.key.to_string()).collect();
        assert_eq!(names, ["default/b"]);
        let deleted = decoder.update(watcher::Event::Delete(object("b", json!(80))));
        assert!(matches!(deleted, Some(Update::Delete(key)) if key.name == "b"));
    }

    #[test]
    fn objects_that_do_not_decode_are_named() {
        let mut decoder = Decoder::new(convert::service, convert::service_key);
        let update = decoder.update(watcher::Event::Apply(object("odd", json!("eighty"))));
        let Some(Update::Apply(parsed)) = update else { panic!() };
        assert_eq!(parsed.verdict, Verdict::Unreadable);
        assert_eq!(parsed.problems[0].object, "Service default/odd");
        assert!(parsed.problems[0].what.contains("eighty"), "{}", parsed.problems[0]);
    }
}
