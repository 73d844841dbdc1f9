//! One file: documents, objects, and what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::defaults;
use crate::model::{
    Node, Pod, PodName, Problem, Service, ServiceCidr, ServiceCidrName, ServiceName, Slice,
    SliceName,
};
use crate::source::{Object, Parsed, convert, objects};

/// Kind and name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// A Service.
    Service(ServiceName),
    /// An EndpointSlice.
    Slice(SliceName),
    /// A ServiceCIDR.
    ServiceCidr(ServiceCidrName),
    /// The Node of this name.
    Node(String),
    /// A Pod.
    Pod(PodName),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "{} {name}", Service::KIND),
            Self::Slice(name) => write!(f, "{} {name}", Slice::KIND),
            Self::ServiceCidr(name) => write!(f, "{} {name}", ServiceCidr::KIND),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Pod(name) => write!(f, "{} {name}", Pod::KIND),
        }
    }
}

/// An object of a file.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Item {
    /// A Service.
    Service(Parsed<Service>),
    /// An EndpointSlice.
    Slice(Parsed<Slice>),
    /// A ServiceCIDR.
    ServiceCidr(Parsed<ServiceCidr>),
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Parsed<Pod>),
}

/// What a file holds.
#[derive(Default, Debug)]
pub(super) struct Contents {
    /// Objects by name; where one is there twice, the first.
    pub(super) items: BTreeMap<Key, Arc<Item>>,
    /// What is wrong with the file itself.
    pub(super) problems: Vec<Problem>,
    /// Some part of the file could not be read, so `items` may lack objects.
    pub(super) broken: bool,
}

/// Reads the text of a file.
pub(super) fn read(file: &str, text: &str) -> Contents {
    read_with(file, text, &|_| {})
}

/// The same; `complete` fills in each Service before it is looked at.
pub(super) fn read_with(file: &str, text: &str, complete: &dyn Fn(&mut Value)) -> Contents {
    let mut reader = Reader { file, complete, contents: Contents::default() };
    if file.ends_with(".json") {
        match serde_json::from_str(text) {
            Ok(value) => reader.object(&value, 1, None),
            Err(error) => reader.broken(error.line(), &format!("is no JSON: {error}")),
        }
    } else {
        for (line, document) in documents(text) {
            match parse_yaml(document) {
                Ok(value) => reader.object(&value, line, None),
                Err(error) => {
                    let inside = error.location().map_or(1, |at| at.line().max(1));
                    let at = line + usize::try_from(inside).unwrap_or(1) - 1;
                    let error = error.without_snippet().to_string();
                    reader.broken(at, &format!("is no YAML: {error}"));
                }
            }
        }
    }
    reader.contents
}

/// Reads a file that holds no text.
pub(super) fn unreadable(file: &str, error: &str) -> Contents {
    let mut reader = Reader { file, complete: &|_| {}, contents: Contents::default() };
    reader.problem(None, format!("cannot be read: {error}; its objects stay as they were"));
    reader.contents.broken = true;
    reader.contents
}

fn parse_yaml(document: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        // As YAML 1.2 has it: `no` and `on` are words.
        strict_booleans: true,
        with_snippet: false,
        // The library's limits guard against strangers' input and would refuse one big List.
        budget: serde_saphyr::budget! {
            max_events: 1_000_000_000,
            max_nodes: 1_000_000_000,
            max_total_scalar_bytes: 1 << 32,
        },
    };
    serde_saphyr::from_str_with_options(document, options)
}

/// The documents of a YAML stream with the line each begins at. Split before parsing, so that a
/// broken one does not hide the others: `---` and `...` at the start of a line end a document
/// wherever they stand (YAML 1.2.2 section 9.1.2).
fn documents(text: &str) -> Vec<(usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is = |line: &str, marker: &str| {
        line.strip_prefix(marker)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
    };
    let mut starts = vec![(1, 0)];
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        let bare = line.trim_end();
        if is(bare, "---") {
            starts.push((index + 1, offset));
        } else if is(bare, "...") {
            starts.push((index + 2, end));
        }
        offset = end;
    }
    let ends = starts.iter().skip(1).map(|(_, at)| *at).chain([text.len()]);
    let chunks = starts.iter().zip(ends).map(|((line, from), to)| (*line, &text[*from..to]));
    chunks.filter(|(_, chunk)| has_content(chunk)).collect()
}

/// Whether there is more than comments, directives and markers.
fn has_content(chunk: &str) -> bool {
    chunk.lines().any(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && line != "..." && !line.starts_with(['#', '%'])
    })
}

struct Reader<'a> {
    file: &'a str,
    complete: &'a dyn Fn(&mut Value),
    contents: Contents,
}

impl Reader<'_> {
    fn problem(&mut self, line: Option<usize>, what: String) {
        let place = match line {
            Some(line) => format!("manifest {}:{line}", self.file),
            None => format!("manifest {}", self.file),
        };
        self.contents.problems.push(Problem::new(place, what, "mend the file"));
    }

    fn broken(&mut self, line: usize, what: &str) {
        let what = format!("{what}; objects that were here before stay as they were");
        self.problem(Some(line), what);
        self.contents.broken = true;
    }

    /// One object or a list of them; `kind` comes from a typed list, whose items need not say it.
    fn object(&mut self, value: &Value, line: usize, kind: Option<(&str, &str)>) {
        if value.is_null() {
            return;
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let (Some(version), Some(name)) = (
            text("apiVersion").or(kind.map(|kind| kind.0)),
            text("kind").or(kind.map(|kind| kind.1)),
        ) else {
            let what = "is no Kubernetes object: it has no apiVersion or no kind".to_owned();
            return self.problem(Some(line), what);
        };
        match (version, name) {
            ("v1", "Service") => {
                let mut value = value.clone();
                (self.complete)(&mut value);
                self.read(&value, line, &SERVICE);
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => self.read(value, line, &SLICE),
            ("networking.k8s.io/v1", "ServiceCIDR") => self.read(value, line, &SERVICE_CIDR),
            ("v1", "Pod") => self.read(value, line, &POD),
            ("v1", "Node") => self.node(value, line),
            (other, "EndpointSlice") => self.problem(
                Some(line),
                format!("has an EndpointSlice of {other}, only discovery.k8s.io/v1 is understood"),
            ),
            (_, list) if list.ends_with("List") => {
                let kind = list.trim_end_matches("List");
                let kind = (!kind.is_empty()).then_some((version, kind));
                for item in value.get("items").and_then(Value::as_array).into_iter().flatten() {
                    self.object(item, line, kind);
                }
            }
            _ => tracing::debug!(file = self.file, line, kind = name, "object passed over"),
        }
    }

    /// An object of a kind. One that does not decode is told under its name, if it has one.
    fn read<K: DeserializeOwned, T: Object>(
        &mut self,
        value: &Value,
        line: usize,
        kind: &Kind<K, T>,
    ) {
        let parsed = match decode(value) {
            Ok(object) => (kind.convert)(object),
            Err(error) => {
                let Some(meta) = self.name(value, line, &error) else { return };
                let error = format!("manifest {}:{line}: {error}", self.file);
                Parsed::unreadable((kind.key_of)(&meta), &error)
            }
        };
        self.add((kind.key)(parsed.key.clone()), (kind.item)(parsed), line);
    }

    fn node(&mut self, value: &Value, line: usize) {
        match decode::<objects::Node>(value) {
            Ok(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                self.add(Key::Node(name), Item::Node(convert::node(&node)), line);
            }
            Err(error) => self.broken(line, &format!("has a Node that cannot be read: {error}")),
        }
    }

    fn add(&mut self, key: Key, item: Item, line: usize) {
        match self.contents.items.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Arc::new(item));
            }
            std::collections::btree_map::Entry::Occupied(entry) => {
                let what = format!("has {} a second time, the first one counts", entry.key());
                self.problem(Some(line), what);
            }
        }
    }

    /// The name of an object that does not decode; the namespace counts for kinds that have one.
    fn name(&mut self, value: &Value, line: usize, error: &DecodeError) -> Option<ObjectMeta> {
        let text = |key: &str| value.pointer(key).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").filter(|name| !name.is_empty());
        if name.is_none() {
            self.broken(line, &format!("has an object that cannot be read: {error}"));
        }
        let mut meta = ObjectMeta { name: Some(name?), ..ObjectMeta::default() };
        meta.namespace = text("/metadata/namespace");
        defaults::namespace(&mut meta);
        Some(meta)
    }
}

/// How objects of a kind are read.
struct Kind<K, T: Object> {
    /// Fills in what is missing, and makes the model's object of it.
    convert: fn(K) -> Parsed<T>,
    key_of: fn(&ObjectMeta) -> T::Key,
    key: fn(T::Key) -> Key,
    item: fn(Parsed<T>) -> Item,
}

const SERVICE: Kind<objects::Service, Service> = Kind {
    convert: |mut service| {
        let mut problems = defaults::service(&mut service);
        let mut parsed = convert::service(&service);
        problems.append(&mut parsed.problems);
        Parsed { problems, ..parsed }
    },
    key_of: convert::service_key,
    key: Key::Service,
    item: Item::Service,
};

const SLICE: Kind<objects::EndpointSlice, Slice> = Kind {
    convert: |mut slice| {
        defaults::slice(&mut slice);
        convert::slice(&slice)
    },
    key_of: convert::slice_key,
    key: Key::Slice,
    item: Item::Slice,
};

const SERVICE_CIDR: Kind<objects::ServiceCIDR, ServiceCidr> = Kind {
    convert: |service_cidr| convert::service_cidr(&service_cidr),
    key_of: convert::service_cidr_key,
    key: Key::ServiceCidr,
    item: Item::ServiceCidr,
};

const POD: Kind<objects::Pod, Pod> = Kind {
    convert: |mut pod| {
        defaults::namespace(&mut pod.metadata);
        convert::pod(&pod)
    },
    key_of: convert::pod_key,
    key: Key::Pod,
    item: Item::Pod,
};

/// Why an object does not decode.
#[derive(Debug, thiserror::Error)]
enum DecodeError {
    #[error("it has no metadata.name")]
    NoName,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Decodes an object that has a name.
fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    let named =
        value.pointer("/metadata/name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if !named {
        return Err(DecodeError::NoName);
    }
    Ok(T::deserialize(value)?)
}
